"""One unit, done exactly once: look it up, else have it run somewhere and find its record afterwards."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from components.errors import PermanentError, StockpotError, TransientError
from components.pipeline.bundle import Bundle
from components.pipeline.content import Content
from components.pipeline.identity import Record
from components.pipeline.launcher import STOP, End, Launcher
from components.pipeline.plan import Plan
from components.pipeline.tail import Report
from components.pipeline.workspace import log_path
from components.runtime import Runtime
from components.storage import open_storage


class UnitFailedError(StockpotError):
    """A step ended with a bug (exit code 1); the log has its traceback."""


@dataclass(frozen=True)
class Done:
    """A finished unit."""

    record: Record
    reused: bool
    seconds: float


@dataclass(frozen=True)
class Pipeline:
    """A planned recipe, and where its units run."""

    plan: Plan
    content: Content
    profile: Runtime
    home: Path
    """Absolute path of the scratch folder: work/, logs/ and answers/."""
    store: str
    """Absolute path or s3:// prefix that has ckpt/ and units/."""
    launcher: Launcher

    def ensure(self, name: str, upstream: dict[str, Record], on_report: Callable[[Report], None]) -> Done:
        """The record of unit `name`, run now if it is not there yet.

        Raises TransientError when trying again may help, PermanentError when the user must change something, UnitFailedError
        for a bug. Two flows that want the same unit at once: the second waits for the first and takes its record.
        """
        unit, start = self.plan.units[name], time.monotonic()
        bundle = unit.bundle(upstream)
        if record := self.content.lookup(bundle.identity):
            return Done(record, True, 0.0)
        if STOP.is_set():
            raise TransientError(f"{name}: not started: this run was asked to stop")
        attempt = self.launcher.submit(bundle)
        end = attempt.wait(on_report)
        if end.code:
            raise self._failure(bundle, end)
        record = self.content.lookup(bundle.identity)
        if record is None:
            raise UnitFailedError(f"{name}: ended well without a record of {bundle.identity}")
        if not attempt.reused:
            open_storage(self.store).delete(f"ckpt/{bundle.identity}/")
        return Done(record, attempt.reused, time.monotonic() - start)

    def _failure(self, bundle: Bundle, end: End) -> StockpotError:
        if end.code == TransientError.code:
            return TransientError(f"{bundle.stage}: {end.message}")
        if end.code == PermanentError.code:
            return PermanentError(f"{bundle.stage}: {end.message}")
        return UnitFailedError(f"{bundle.stage}: {end.error}: {end.message} (log: {log_path(self.home, bundle)})")
