"""One unit, done exactly once: look it up, else run it in a workspace and find its record afterwards."""

import fcntl
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from components.errors import PermanentError, StockpotError, TransientError
from components.pipeline.content import Content
from components.pipeline.identity import Record
from components.pipeline.launch import STOP, run_local
from components.pipeline.plan import Plan
from components.pipeline.tail import Report
from components.pipeline.workspace import lay_out, sweep
from components.profile import Profile
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
    """A planned recipe on this machine."""

    plan: Plan
    content: Content
    profile: Profile
    home: Path
    """Absolute path of the scratch folder: work/, logs/ and answers/."""
    store: str
    """Absolute path or s3:// prefix that has ckpt/."""

    def ensure(self, name: str, upstream: dict[str, Record], on_report: Callable[[Report], None]) -> Done:
        """The record of unit `name`, run now if it is not there yet.

        Raises TransientError when trying again may help, PermanentError when the user must change something, UnitFailedError
        for a bug. Two flows that want the same unit at once: the second waits for the first and takes its record.
        """
        unit, start = self.plan.units[name], time.monotonic()
        bundle = unit.bundle(upstream)
        key = bundle.identity
        if record := self.content.lookup(key):
            return Done(record, True, 0.0)
        scratch = self.home / "work"
        scratch.mkdir(parents=True, exist_ok=True)
        with (scratch / f"{name}-{key}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # closed, not unlocked: the unit's processes hold it too, until the last one is gone
            if record := self.content.lookup(key):
                return Done(record, True, time.monotonic() - start)
            if STOP.is_set():
                raise TransientError(f"{name}: not started: this run was asked to stop")
            sweep(scratch)
            folder = lay_out(bundle, self.plan.snapshot, self.content.config_text(), scratch / f"{name}-{key}")
            places = {"STOCKPOT_CKPT": f"{self.store}/ckpt/{key}", "STOCKPOT_ANSWERS": f"{self.home}/answers"}
            end = run_local(folder, lock, self.profile, places, on_report)
            self._keep_log(folder, f"{name}-{key[:10]}")
        if end["code"]:
            raise self._failure(name, key, end["code"], end["error"], end["message"])
        record = self.content.lookup(key)
        if record is None:
            raise UnitFailedError(f"{name}: ended well without a record of {key}")
        open_storage(self.store).delete(f"ckpt/{key}/")
        shutil.rmtree(folder, ignore_errors=True)
        return Done(record, False, time.monotonic() - start)

    def log_of(self, name: str, key: str) -> Path:
        """Where the output of the last attempt is kept."""
        return self.home / "logs" / f"{name}-{key[:10]}.log"

    def _keep_log(self, folder: Path, name: str) -> None:
        if (folder / "log").exists():
            (self.home / "logs").mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / "log", self.home / "logs" / f"{name}.log")

    def _failure(self, name: str, key: str, code: int, error: str, message: str) -> StockpotError:
        if code == TransientError.code:
            return TransientError(f"{name}: {message}")
        if code == PermanentError.code:
            return PermanentError(f"{name}: {message}")
        return UnitFailedError(f"{name}: {error}: {message} (log: {self.log_of(name, key)})")
