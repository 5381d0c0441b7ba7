"""One question to a registered model, as anybody would ask it: through MLflow, from the package alone."""

from pathlib import Path

import pandas as pd

from components.errors import DataError, SetupError
from components.settings import Settings
from components.tracking.store import client, default_uri, explained


def predict(model: str, image: Path, question: str, settings: Settings) -> str:
    """The answer of the MLflow model URI `model` (models:/stockpot-tiny@champion, a folder, ...) to a question about the picture file `image`.

    Raises DataError for a picture or question that is of no use, SetupError for a model that is not there or an MLflow that does not answer.
    """
    if not image.is_file():
        raise DataError(f"{image}: no such file: expected a picture")
    uri = settings.tracking_uri or default_uri(settings.home)
    client(uri)
    import mlflow
    from mlflow.exceptions import MlflowException

    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    with explained(uri):
        try:
            loaded = mlflow.pyfunc.load_model(model)
        except (MlflowException, OSError) as error:
            if isinstance(error, MlflowException) and error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "BAD_REQUEST"):
                raise
            raise SetupError(f"{model}: no such model ({str(error).splitlines()[0]}): see `stockpot status`, or run `stockpot run` first") from error
    try:
        return loaded.predict(pd.DataFrame({"image": [image.read_bytes()], "question": [question]}))[0]
    except ValueError as error:
        raise DataError(f"{image}: {str(error).removeprefix('row 0: ')}") from error
