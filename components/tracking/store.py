"""Where MLflow is: its address, whether it answers, a client of it, and what its failures mean for a user."""

import contextlib
import fcntl
import logging
import os
import re
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from components.errors import SetupError, TransientError

if TYPE_CHECKING:
    from mlflow import MlflowClient


CHECK_SECONDS = 5.0
"""An MLflow server that does not answer `/health` within this time is away."""

CALM = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}
"""MLflow's own retries would hide a dead server for four minutes. What the user's environment says wins."""


def default_uri(home: Path) -> str:
    """The embedded default: an SQLite file in `home`. Its artifacts lie beside it, see `artifact_location`."""
    return f"sqlite:///{home.absolute()}/mlflow.db"


def sqlite_path(tracking_uri: str) -> Path | None:
    """The file of an SQLite store, else None."""
    return Path(tracking_uri.removeprefix("sqlite:///")).absolute() if tracking_uri.startswith("sqlite:///") else None


def artifact_location(tracking_uri: str) -> str | None:
    """Where an experiment of ours keeps its files: `mlartifacts` beside the SQLite file; None: the server decides."""
    path = sqlite_path(tracking_uri)
    return (path.parent / "mlartifacts").as_uri() if path else None


def check_mlflow(tracking_uri: str) -> None:
    """Raises SetupError within 10 s when the MLflow store can not be used: no server there, no such folder, an unknown scheme."""
    scheme = tracking_uri.partition(":")[0]
    if scheme in ("http", "https"):
        check_server(tracking_uri)
    elif path := sqlite_path(tracking_uri):
        _check_file(path)
    elif not scheme.startswith(("postgresql", "mysql", "mssql")):
        raise SetupError(
            f"MLFLOW_TRACKING_URI={without_password(tracking_uri)}: expected http://..., sqlite:///FILE or a database address; unset it for a local file"
        )


def without_password(tracking_uri: str) -> str:
    """The address without a password, for sentences and logs."""
    return re.sub(r"(?<=://)[^/]*@", "", tracking_uri)


def client(tracking_uri: str) -> "MlflowClient":
    """An MLflow client whose runs and registry are both at `tracking_uri`. Raises SetupError when nothing answers there."""
    check_mlflow(tracking_uri)
    for key, value in CALM.items():
        os.environ.setdefault(key, value)
    from mlflow import MlflowClient

    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # it logs a traceback before it raises; we say the same in a sentence
    with explained(tracking_uri):
        if path := sqlite_path(tracking_uri):
            _make_store(path)
        return MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)


@contextlib.contextmanager
def explained(tracking_uri: str) -> Iterator[None]:
    """Turns a server that dies in the middle of the work, or refuses us, into the user's sentence. Other errors pass."""
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException

    where = without_password(tracking_uri)
    try:
        yield
    except RequestException as error:
        raise TransientError(f"MLflow at {where} stopped answering: start it again and run the same command again; nothing finished is lost") from error
    except MlflowException as error:
        status, text = error.get_http_status_code(), str(error)
        if status in (401, 403):
            raise SetupError(f"MLflow at {where} refused ({status}): set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD or a token") from error
        if "API request to" in text or "database is locked" in text or status in (429, 502, 503, 504):
            raise TransientError(f"MLflow at {where} stopped answering: start it again and run the same command again; nothing finished is lost") from error
        if "out-of-date database schema" in text:
            raise SetupError(f"MLflow at {where} was made by another MLflow version: run `mlflow db upgrade {where}`") from error
        raise


def failures() -> tuple[type[Exception], ...]:
    """What MLflow, its server or the disk can do to us while we log."""
    from mlflow.exceptions import MlflowException

    return (MlflowException, SetupError, TransientError, OSError)


def ensure_experiment(mlflow_client: "MlflowClient", tracking_uri: str, name: str) -> str:
    """The experiment's id; made, or taken out of the bin, when it is not there. Safe when several processes do it at once."""
    from mlflow.exceptions import MlflowException

    found = mlflow_client.get_experiment_by_name(name)
    if found is None:
        try:
            return mlflow_client.create_experiment(name, artifact_location=artifact_location(tracking_uri))
        except MlflowException as error:
            found = mlflow_client.get_experiment_by_name(name)
            if error.error_code != "RESOURCE_ALREADY_EXISTS" or found is None:
                raise
    if found.lifecycle_stage == "deleted":
        mlflow_client.restore_experiment(found.experiment_id)
    return found.experiment_id


def _check_file(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        why = "" if os.access(path if path.exists() else path.parent, os.W_OK) else "no right to write"
    except OSError as error:
        why = str(error.strerror)
    if why:
        raise SetupError(f"{path}: {why}: MLflow's SQLite file is kept there; give this user the right or choose another folder")


def check_server(tracking_uri: str) -> None:
    """Raises SetupError within CHECK_SECONDS when no healthy MLflow server answers there."""
    where = without_password(tracking_uri)
    remedy = "start it, or unset MLFLOW_TRACKING_URI to keep runs in a local file"
    try:
        with urllib.request.urlopen(f"{where.rstrip('/')}/health", timeout=CHECK_SECONDS) as answer:  # noqa: S310  http(s) only, see check
            answer.read()
    except urllib.error.HTTPError as error:
        if error.code not in (401, 403):
            raise SetupError(f"{where}: something answers there ({error.code}), but it is no healthy MLflow server: {remedy}") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise SetupError(f"{where}: the MLflow server does not answer ({reason}): {remedy}") from error


def _make_store(path: Path) -> None:
    """Makes a fresh SQLite store aside and renames it into place.

    MLflow's own way takes seconds of migrations in the file itself: a kill in the middle, or a second process (in spite of
    MLflow's lock), leaves a file that no later start can use.
    """
    if path.exists():
        return
    from mlflow import MlflowClient

    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():
            return
        with tempfile.TemporaryDirectory(dir=path.parent, prefix="mlflow-new-") as aside:
            uri = default_uri(Path(aside))
            fresh = MlflowClient(tracking_uri=uri, registry_uri=uri)
            fresh.search_experiments(max_results=1)
            fresh.search_registered_models(max_results=1)
            Path(aside, "mlflow.db").rename(path)
