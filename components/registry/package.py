"""Step `package`: the soup as a self-contained MLflow model directory. Same model and scores, same bytes; nothing is pickled.

It is put together by MLflow itself (models-from-code pyfunc); afterwards MLmodel loses what differs from run to run.
"""

import importlib.metadata
import io
import json
import logging
import os
import platform
import shutil
import sys
import tempfile
import uuid
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from components.data import images
from components.errors import DataError
from components.evaluation.scores import model_digest
from components.models import checkpoint, generation
from components.models.errors import ModelError
from components.registry import served_model
from components.registry.card import card
from components.registry.digest import folder_digest
from components.registry.travelling_code import copy_code
from components.step import Step

logger = logging.getLogger(__name__)

REQUIREMENTS = ("mlflow", "numpy", "pillow", "safetensors", "tokenizers", "torch", "transformers")
SAVED_AT = "2000-01-01 00:00:00.000000"
"""The time that every package carries: a package is named by its content."""
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false", "MLFLOW_UV_AUTO_DETECT": "false"}
"""Also keeps MLflow from packing a uv.lock that happens to lie in the current directory."""
SCORES = "out/evaluate/scores.json"


def run(step: Step) -> None:
    """Packages out/soup/data with out/evaluate/scores.json. Raises DataError when they do not belong together or the package does not answer."""
    model, path = step.input("soup"), step.file(SCORES)
    try:
        scores = json.loads(path.read_text(encoding="utf-8"))
        checkpoint.load_config(model)
        digest = model_digest(model)
    except (ModelError, OSError, ValueError) as error:
        raise DataError(f"{str(error).rstrip('.')}: run the steps soup and evaluate again") from error
    if scores.get("model_digest") != digest:
        raise DataError(f"{path}: model_digest: the scores are of another model than {model}: run the step evaluate again")
    write_package(model, scores, step.param("name"), step.data)
    _try_out(step.data)
    logger.info("package %s of model %s", folder_digest(step.data)[:12], digest[:12])


def write_package(model: Path, scores: Mapping[str, Any], name: str, folder: Path) -> None:
    """Writes the MLflow model directory `folder` (empty or not there) for a model directory. Deterministic for one environment."""
    import mlflow.pyfunc

    with tempfile.TemporaryDirectory() as aside, _settings(QUIET), warnings.catch_warnings():
        stand_in = Path(aside, "model")  # MLflow refuses model files that are links; the model takes its place below
        stand_in.touch()
        warnings.filterwarnings("ignore", "(?s).*An input example was not provided")  # the signature is written by hand
        mlflow.pyfunc.save_model(
            folder,
            python_model=str(served_model.__file__),
            artifacts={"model": str(stand_in)},
            code_paths=[str(copy_code(Path(aside), [checkpoint, generation], {"decode": images}))],
            signature=_signature(),
            conda_env=_environment(),
            metadata={"recipe": name, "model_digest": scores["model_digest"]},
        )
    (folder / "artifacts" / "model").unlink()
    shutil.copytree(model, folder / "artifacts" / "model", copy_function=shutil.copyfile)
    for cache in sorted(folder.rglob("__pycache__")):
        shutil.rmtree(cache)
    python = f"python: {platform.python_version()}\nbuild_dependencies:\n- pip\ndependencies:\n- -r requirements.txt\n"
    (folder / "python_env.yaml").write_text(python, encoding="utf-8")
    (folder / "README.md").write_text(card(name, scores), encoding="utf-8")
    _describe(folder)


def _describe(folder: Path) -> None:
    """MLmodel without time, place and chance; its uuid is that of the content."""
    from mlflow.models import Model

    described = Model.load(str(folder / "MLmodel"))
    described.utc_time_created, described.run_id, described.model_uuid = SAVED_AT, None, None
    described.flavors["python_function"]["artifacts"] = {"model": {"path": "artifacts/model", "uri": "artifacts/model"}}
    described.flavors["python_function"]["model_code_path"] = Path(str(served_model.__file__)).name
    described.model_size_bytes = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file() and p.name != "MLmodel")
    described.save(str(folder / "MLmodel"))
    described.model_uuid = uuid.UUID(folder_digest(folder)[:32]).hex
    described.save(str(folder / "MLmodel"))


def _signature() -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import AnyType

    longest = ParamSpec("max_new_tokens", "long", served_model.MAX_NEW_TOKENS)
    inputs = Schema([ColSpec(AnyType(), "image", required=False), ColSpec("string", "question")])
    return ModelSignature(inputs=inputs, outputs=Schema([ColSpec("string")]), params=ParamSchema([longest]))


def _environment() -> dict[str, Any]:
    """The packages that this process runs on, without a local suffix such as +cpu: each machine takes its own build."""
    pins = [f"{p}=={importlib.metadata.version(p).partition('+')[0]}" for p in REQUIREMENTS]
    return {"name": "stockpot", "channels": ["conda-forge"], "dependencies": [f"python={platform.python_version()}", "pip", {"pip": pins}]}


def _try_out(folder: Path) -> None:
    """Loads the package as a user will and asks one question. Raises DataError when no answer comes."""
    import mlflow.pyfunc

    black = io.BytesIO()
    Image.new("RGB", (32, 32)).save(black, "PNG")
    questions = pd.DataFrame({"image": [black.getvalue(), None], "question": ["What is it?"] * 2})
    with _no_trace(folder):
        answers = mlflow.pyfunc.load_model(str(folder)).predict(questions, params={"max_new_tokens": 1})
    if len(answers) != 2 or not all(isinstance(a, str) for a in answers):
        raise DataError(f"{folder}: the package answers {answers!r} to two questions: expected two texts; look at the soup's model directory")


@contextmanager
def _no_trace(folder: Path) -> Iterator[None]:
    """Leaves no trace of having run code from `folder`: no `__pycache__` in it, none of its modules in memory, nothing on the path."""
    before, path = sys.dont_write_bytecode, list(sys.path)
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.dont_write_bytecode, sys.path[:] = before, path
        here = str(folder.absolute())
        for name in [name for name, module in sys.modules.items() if str(getattr(module, "__file__", None)).startswith((here, str(folder)))]:
            del sys.modules[name]


@contextmanager
def _settings(values: dict[str, str]) -> Iterator[None]:
    """Environment variables for MLflow, put back afterwards."""
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            os.environ.pop(key) if value is None else os.environ.update({key: value})
