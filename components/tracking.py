"""The one place that logs to MLflow runs: a parent run per pipeline run, a child run per executed step.

MLflow is the record, not the work: while steps run, a server that went away costs warnings, never the run. The points
stay in the unit's `metrics.jsonl`, and logging them again later adds none twice. MLflow is imported on first use (3 s).
"""

import contextlib
import fcntl
import json
import logging
import math
import os
import re
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from components.errors import SetupError, TransientError

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)

Status = Literal["FINISHED", "FAILED", "KILLED"]

CHECK_SECONDS = 5.0
"""An MLflow server that does not answer `/health` within this time is away."""
FLUSH_SECONDS = 1.0
"""Least time between two batches of points."""
PAUSE_SECONDS = 30.0
"""After a failure, logging waits this long before it tries again, so that a dead server does not slow the work down."""
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


def check(tracking_uri: str) -> None:
    """Raises SetupError within 10 s when the MLflow store can not be used: no server there, no such folder, an unknown scheme."""
    scheme = tracking_uri.partition(":")[0]
    if scheme in ("http", "https"):
        _check_server(tracking_uri)
    elif path := sqlite_path(tracking_uri):
        _check_file(path)
    elif not scheme.startswith(("postgresql", "mysql", "mssql")):
        raise SetupError(f"MLFLOW_TRACKING_URI={shown(tracking_uri)}: expected http://..., sqlite:///FILE or a database address; unset it for a local file")


def shown(tracking_uri: str) -> str:
    """The address without a password, for sentences and logs."""
    return re.sub(r"(?<=://)[^/]*@", "", tracking_uri)


def client(tracking_uri: str) -> "MlflowClient":
    """An MLflow client whose runs and registry are both at `tracking_uri`. Raises SetupError when nothing answers there."""
    check(tracking_uri)
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

    where = shown(tracking_uri)
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


def open_parent(tracking_uri: str, experiment: str, run_name: str, tags: Mapping[str, str], params: Mapping[str, Any] | None = None) -> str:
    """Starts the parent run of one pipeline run and returns its id. `params`: nested, logged flat.

    Raises SetupError or TransientError when MLflow does not answer: nothing has been done yet, so stopping costs nothing.
    """
    c = client(tracking_uri)
    with explained(tracking_uri):
        run = c.create_run(ensure_experiment(c, tracking_uri, experiment), tags=dict(tags), run_name=run_name)
        _log_params(c, run.info.run_id, params or {})
    return run.info.run_id


def finish_parent(
    tracking_uri: str,
    run_id: str,
    status: Status,
    *,
    texts: Mapping[str, str] | None = None,
    files: Sequence[Path] = (),
    points: Iterable[Mapping[str, Any]] = (),
    tables: Mapping[str, Mapping[str, Sequence[Any]]] | None = None,
    description: str = "",
) -> list[str]:
    """Ends the parent run: `texts` (artifact name -> content, such as dvc.lock), `files`, `tables` (artifact name -> columns).

    `points`: metrics, as `{done, **numbers}`, every number at step `done`; `description`: Markdown for the run's page.
    Returns warnings, never raises for MLflow's sake.
    """
    try:
        c = client(tracking_uri)
        with explained(tracking_uri):
            _log_points(c, run_id, _points(({_name(k): v for k, v in line.items()} for line in points), set()))
            for name, text in (texts or {}).items():
                c.log_text(run_id, text, name)
            for name, columns in (tables or {}).items():
                c.log_table(run_id, dict(columns), name)
            _log_files(c, run_id, files)
            if description:
                c.set_tag(run_id, "mlflow.note.content", description)
            c.set_terminated(run_id, status)
    except _failures() as error:
        return [f"run {run_id}: not all of it is in MLflow: {error}"]
    return []


def page(tracking_uri: str, run_id: str) -> str:
    """Where MLflow shows a run: the path below a server's address. From one of its pages to another that is the whole link.

    Raises SetupError or TransientError when MLflow does not answer.
    """
    c = client(tracking_uri)
    with explained(tracking_uri):
        return f"#/experiments/{c.get_run(run_id).info.experiment_id}/runs/{run_id}"


def watch_machine(tracking_uri: str, run_id: str) -> Callable[[], None]:
    """Logs use of CPU, memory, disk, network and GPUs as the run's system metrics every 10 s, until the returned function is called."""
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    logging.getLogger(SystemMetricsMonitor.__module__).setLevel(logging.ERROR)  # a server that went away is told by StepLog
    monitor = SystemMetricsMonitor(run_id, tracking_uri=tracking_uri)
    monitor.start()

    def stop() -> None:
        ending = threading.Thread(target=monitor.finish, daemon=True)
        ending.start()
        ending.join(CHECK_SECONDS)  # it waits for a server that hangs; we do not

    return stop


def flatten(params: Any, prefix: str = "") -> dict[str, str]:
    """Nested mappings and lists as `a.b.0` -> text, as MLflow shows parameters. Empty ones are kept as `{}` and `[]`."""
    items = params.items() if isinstance(params, Mapping) else enumerate(params) if isinstance(params, list | tuple) else None
    if items is None or (not params and prefix):
        return {prefix: str(params)}
    flat: dict[str, str] = {}
    for key, value in items:
        flat |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return flat


class StepLog:
    """The child run of one executed step. No method raises when MLflow fails: `warnings` says what is missing.

    Opening the log of the same step and identity under the same parent again, after a retry or later from `metrics.jsonl`,
    goes on with the same child run and adds only points that are not there.
    """

    def __init__(
        self,
        tracking_uri: str,
        parent: str,
        step: str,
        identity: str,
        *,
        params: Mapping[str, Any],
        inputs: Mapping[str, str],
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """`params`: the step's slice of the recipe (nested). `inputs`: name -> digest of each input, shown as datasets."""
        self.tracking_uri, self.parent, self.step, self.identity = tracking_uri, parent, step, identity
        self.params, self.inputs, self.tags = params, inputs, dict(tags or {})
        self.run_id: str | None = None
        self.warnings: list[str] = []
        self._client: MlflowClient | None = None
        self._lines: list[dict[str, Any]] = []
        self._logged: set[tuple[str, int]] = set()
        self._offset, self._next = 0, 0.0
        self._attempt(lambda c: None)

    def report(self, line: Mapping[str, Any]) -> None:
        """Takes one line of metrics.jsonl: `{time, done, total, **numbers}`. Numbers become metrics at step `done`, at most one batch a second."""
        self._lines.append(dict(line))
        if time.monotonic() >= self._next:
            self._flush()

    def follow(self, path: Path) -> None:
        """Takes the whole lines that `path` (metrics.jsonl) has got since the last call. Lines that are no JSON object are skipped."""
        self._lines += self._new_lines(path)
        if self._lines and time.monotonic() >= self._next:
            self._flush()

    def finish(self, status: Status, files: Sequence[Path] = (), metrics: Mapping[str, float] | None = None, reason: str = "") -> list[str]:
        """Logs what is left, then `files` (loss.csv, summary.json, ...; missing ones are skipped), and ends the run. Returns all warnings."""
        self._lines += [{"done": 0, **metrics}] if metrics else []

        def end(c: "MlflowClient") -> None:
            assert self.run_id is not None
            _log_files(c, self.run_id, files)
            if reason:
                c.set_tag(self.run_id, "stockpot.reason", reason)
            c.set_terminated(self.run_id, status)

        if self._flush():
            self._attempt(end)
        if self._lines:
            self.warnings.append(f"step {self.step}: {len(self._lines)} reports are not in MLflow; they are in the unit's metrics.jsonl")
        return self.warnings

    def _flush(self) -> bool:
        def send(c: "MlflowClient") -> None:
            assert self.run_id is not None
            points = _points(self._lines, self._logged)
            _log_points(c, self.run_id, points)
            self._logged |= {(p.key, p.step) for p in points}

        done = self._attempt(send)
        if done:
            self._lines = []
        return done

    def _attempt(self, work: "Callable[[MlflowClient], None]") -> bool:
        """Opens the run if need be and does `work`; after a failure, waits before the next attempt."""
        try:
            if self._client is None:
                self._client = client(self.tracking_uri)
            elif self.tracking_uri.startswith("http"):
                _check_server(self.tracking_uri)  # a hanging server would hold up the caller for much longer
            with explained(self.tracking_uri):
                self._open(self._client)
                work(self._client)
        except _failures() as error:
            self._next = time.monotonic() + PAUSE_SECONDS
            sentence = f"step {self.step}: {error}"
            if sentence not in self.warnings:
                self.warnings.append(sentence)
                logger.warning("%s", sentence)
            return False
        self._next = time.monotonic() + FLUSH_SECONDS
        return True

    def _open(self, c: "MlflowClient") -> None:
        if self.run_id is not None:
            return
        experiment = c.get_run(self.parent).info.experiment_id
        mine = f"tags.`mlflow.parentRunId` = '{self.parent}' and tags.`stockpot.step` = '{self.step}' and tags.`stockpot.identity` = '{self.identity}'"
        found = c.search_runs([experiment], mine, max_results=1)
        if found:
            run_id = found[0].info.run_id
            c.update_run(run_id, status="RUNNING")
            self._logged = {(key, p.step) for key in found[0].data.metrics for p in c.get_metric_history(run_id, key)}
        else:
            tags = {"mlflow.parentRunId": self.parent, "stockpot.step": self.step, "stockpot.identity": self.identity, **self.tags}
            run_id = c.create_run(experiment, tags=tags, run_name=self.step).info.run_id
        _log_params(c, run_id, self.params)  # also for a run that was found: an earlier attempt may have died right here
        _log_inputs(c, run_id, self.inputs)
        self.run_id = run_id

    def _new_lines(self, path: Path) -> Iterator[dict[str, Any]]:
        if not path.exists():
            return
        if path.stat().st_size < self._offset:
            self._offset = 0  # another attempt began the file anew
        with path.open("rb") as f:
            f.seek(self._offset)
            data = f.read()
        data = data[: data.rfind(b"\n") + 1]
        self._offset += len(data)
        for raw in data.splitlines():
            try:
                line = json.loads(raw)
            except ValueError:
                continue
            yield from [line] if isinstance(line, dict) else []


def _points(lines: Iterable[Mapping[str, Any]], logged: set[tuple[str, int]]) -> list[Any]:
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


def _log_points(c: "MlflowClient", run_id: str, points: Sequence[Any]) -> None:
    for i in range(0, len(points), 500):  # MLflow takes 1000 in one request
        c.log_batch(run_id, metrics=points[i : i + 500])


def _name(text: str) -> str:
    """A metric's name as MLflow allows it: kinds of questions are other people's words."""
    return "/".join(re.sub(r"[^\w -]", "_", part) for part in text.split("/", 1))[:250]


def _log_params(c: "MlflowClient", run_id: str, params: Mapping[str, Any]) -> None:
    from mlflow.entities import Param

    flat = [Param(key[:250], value[:6000]) for key, value in flatten(params).items()]
    for i in range(0, len(flat), 100):
        c.log_batch(run_id, params=flat[i : i + 100])


def _log_inputs(c: "MlflowClient", run_id: str, inputs: Mapping[str, str]) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    data = [
        DatasetInput(Dataset(name[:500], digest[:36], "dvc", json.dumps({"path": name, "digest": digest})), [InputTag("mlflow.data.context", "input")])
        for name, digest in inputs.items()
    ]
    if data:
        try:
            c.log_inputs(run_id, data)
        except _failures() as error:
            if "UNIQUE constraint" not in str(error):
                raise
            c.log_inputs(run_id, data)  # a step beside this one has just added the same dataset to the SQLite file: now it is there


def _log_files(c: "MlflowClient", run_id: str, files: Iterable[Path]) -> None:
    for path in filter(Path.exists, files):
        c.log_artifact(run_id, str(path))


def _failures() -> tuple[type[Exception], ...]:
    """What MLflow, its server or the disk can do to us while we log."""
    from mlflow.exceptions import MlflowException

    return (MlflowException, SetupError, TransientError, OSError)


def _check_file(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        why = "" if os.access(path if path.exists() else path.parent, os.W_OK) else "no right to write"
    except OSError as error:
        why = str(error.strerror)
    if why:
        raise SetupError(f"{path}: {why}: MLflow's SQLite file is kept there; give this user the right or choose another folder")


def _check_server(tracking_uri: str) -> None:
    where = shown(tracking_uri)
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
