"""The child run of one executed step."""

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.tracking.parent import Status
from components.tracking.store import check_server, client, explained, failures
from components.tracking.writing import as_metrics, log_files, log_inputs, log_metrics, log_params

if TYPE_CHECKING:
    from mlflow import MlflowClient


logger = logging.getLogger(__name__)

FLUSH_SECONDS = 1.0
"""Least time between two batches of points."""

PAUSE_SECONDS = 30.0
"""After a failure, logging waits this long before it tries again, so that a dead server does not slow the work down."""


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
            log_files(c, self.run_id, files)
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
            metrics = as_metrics(self._lines, self._logged)
            log_metrics(c, self.run_id, metrics)
            self._logged |= {(m.key, m.step) for m in metrics}

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
                check_server(self.tracking_uri)  # a hanging server would hold up the caller for much longer
            with explained(self.tracking_uri):
                self._open(self._client)
                work(self._client)
        except failures() as error:
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
        log_params(c, run_id, self.params)  # also for a run that was found: an earlier attempt may have died right here
        log_inputs(c, run_id, self.inputs)
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
