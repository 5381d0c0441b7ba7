"""The parent run of one pipeline run: opened before anything is done, ended with what the run came to."""

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from components.tracking.store import client, ensure_experiment, explained, failures
from components.tracking.writing import as_metrics, log_files, log_metrics, log_params, metric_name

Status = Literal["FINISHED", "FAILED", "KILLED"]

ENDING_SECONDS = 5.0
"""How long the end of a watch may wait for a server that hangs."""


def open_parent(tracking_uri: str, experiment: str, run_name: str, tags: Mapping[str, str], params: Mapping[str, Any] | None = None) -> str:
    """Starts the parent run of one pipeline run and returns its id. `params`: nested, logged flat.

    Raises SetupError or TransientError when MLflow does not answer: nothing has been done yet, so stopping costs nothing.
    """
    c = client(tracking_uri)
    with explained(tracking_uri):
        run = c.create_run(ensure_experiment(c, tracking_uri, experiment), tags=dict(tags), run_name=run_name)
        log_params(c, run.info.run_id, params or {})
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
            log_metrics(c, run_id, as_metrics(({metric_name(k): v for k, v in line.items()} for line in points), set()))
            for name, text in (texts or {}).items():
                c.log_text(run_id, text, name)
            for name, columns in (tables or {}).items():
                c.log_table(run_id, dict(columns), name)
            log_files(c, run_id, files)
            if description:
                c.set_tag(run_id, "mlflow.note.content", description)
            c.set_terminated(run_id, status)
    except failures() as error:
        return [f"run {run_id}: not all of it is in MLflow: {error}"]
    return []


def page_of_run(tracking_uri: str, run_id: str) -> str:
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
        ending.join(ENDING_SECONDS)  # it waits for a server that hangs; we do not

    return stop
