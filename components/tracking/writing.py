"""What is written into a run: parameters, points, inputs and files, within MLflow's limits."""

import json
import math
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.tracking.store import failures

if TYPE_CHECKING:
    from mlflow import MlflowClient


def flatten(params: Any, prefix: str = "") -> dict[str, str]:
    """Nested mappings and lists as `a.b.0` -> text, as MLflow shows parameters. Empty ones are kept as `{}` and `[]`."""
    items = params.items() if isinstance(params, Mapping) else enumerate(params) if isinstance(params, list | tuple) else None
    if items is None or (not params and prefix):
        return {prefix: str(params)}
    flat: dict[str, str] = {}
    for key, value in items:
        flat |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return flat


def as_metrics(lines: Iterable[Mapping[str, Any]], logged: set[tuple[str, int]]) -> list[Any]:
    """MLflow metrics of the lines: every number but time, done and total, at step `done`; each (name, step) once, and none that is in `logged`."""
    from mlflow.entities import Metric

    points: dict[tuple[str, int], Any] = {}
    for line in lines:
        step, when = line.get("done"), line.get("time", time.time())
        if not isinstance(step, int) or not isinstance(when, int | float):
            continue
        for key, value in line.items():
            number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            if number and key not in ("time", "done", "total") and (key, step) not in logged:
                points.setdefault((key, step), Metric(key, float(value), int(when * 1000), step))
    return list(points.values())


def log_metrics(c: "MlflowClient", run_id: str, metrics: Sequence[Any]) -> None:
    """Logs MLflow metrics in batches that it takes."""
    for i in range(0, len(metrics), 500):  # MLflow takes 1000 in one request
        c.log_batch(run_id, metrics=metrics[i : i + 500])


def metric_name(text: str) -> str:
    """A metric's name as MLflow allows it: kinds of questions are other people's words."""
    return "/".join(re.sub(r"[^\w -]", "_", part) for part in text.split("/", 1))[:250]


def log_params(c: "MlflowClient", run_id: str, params: Mapping[str, Any]) -> None:
    """Logs nested parameters flat. Logging equal ones again is no mistake."""
    from mlflow.entities import Param

    flat = [Param(key[:250], value[:6000]) for key, value in flatten(params).items()]
    for i in range(0, len(flat), 100):
        c.log_batch(run_id, params=flat[i : i + 100])


def log_inputs(c: "MlflowClient", run_id: str, inputs: Mapping[str, str]) -> None:
    """Logs inputs (name -> digest) as datasets."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    data = [
        DatasetInput(Dataset(name[:500], digest[:36], "dvc", json.dumps({"path": name, "digest": digest})), [InputTag("mlflow.data.context", "input")])
        for name, digest in inputs.items()
    ]
    if data:
        try:
            c.log_inputs(run_id, data)
        except failures() as error:
            if "UNIQUE constraint" not in str(error):
                raise
            c.log_inputs(run_id, data)  # a step beside this one has just added the same dataset to the SQLite file: now it is there


def log_files(c: "MlflowClient", run_id: str, files: Iterable[Path]) -> None:
    """Logs those of the files that are there."""
    for path in filter(Path.exists, files):
        c.log_artifact(run_id, str(path))
