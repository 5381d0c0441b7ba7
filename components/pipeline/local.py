"""A unit as a local process."""

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from components.pipeline.bundle import Bundle
from components.pipeline.content import Content
from components.pipeline.launcher import STOP, End
from components.pipeline.tail import Report, Tail
from components.pipeline.workspace import lay_out, log_path, sweep
from components.runtime import Runtime

POLL_SECONDS = 0.1


class Local:
    """Units in workspaces below `home`, with the code in `snapshot`."""

    def __init__(self, runtime: Runtime, content: Content, home: Path, store: str, snapshot: Path) -> None:
        self.runtime, self.content, self.home, self.store, self.snapshot = runtime, content, home, store, snapshot

    def check(self, stages: Sequence[str]) -> None:
        """Nothing: this machine is here."""

    def submit(self, bundle: Bundle) -> "LocalAttempt":
        """Starts a unit in a session of its own. When somebody else runs it already, waits for that first."""
        scratch, key = self.home / "work", bundle.identity
        scratch.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as held:
            lock = held.enter_context((scratch / f"{bundle.stage}-{key}.lock").open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX)  # never unlocked: the unit's processes hold it too, until the last one is gone
            if self.content.lookup(key):
                return LocalAttempt(self.runtime, None, None, log_path(self.home, bundle), held)
            sweep(scratch)
            folder = lay_out(bundle, self.snapshot, self.content.config_text(), scratch / f"{bundle.stage}-{key}")
            places = {"STOCKPOT_CKPT": f"{self.store}/ckpt/{key}", "STOCKPOT_ANSWERS": f"{self.home}/answers"}
            return LocalAttempt(self.runtime, folder, self._start(folder, lock, places), log_path(self.home, bundle), held.pop_all())

    def _start(self, folder: Path, lock: IO[str], places: dict[str, str]) -> "subprocess.Popen[bytes]":
        profile = self.runtime.for_step()
        env = {**os.environ, **places, "STOCKPOT_GRACE": str(profile.grace_seconds), "STOCKPOT_UNIT_PROFILE": profile.model_dump_json()}
        env["STOCKPOT_LOCK"] = str(lock.fileno())
        env["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
        command = [sys.executable, "-m", "components.pipeline.wrapper", str(folder)]
        return subprocess.Popen(command, start_new_session=True, stdin=subprocess.PIPE, pass_fds=[lock.fileno()], env=env, cwd=folder)

    def close(self) -> None:
        """Nothing: a unit ends with the pipe to whoever started it; directories of dead ones go with the next submission."""


class LocalAttempt:
    """A wrapper that runs; none when the unit was finished already."""

    def __init__(self, runtime: Runtime, folder: Path | None, wrapper: "subprocess.Popen[bytes] | None", log: Path, held: contextlib.ExitStack) -> None:
        self.runtime, self.folder, self.wrapper, self.log = runtime, folder, wrapper, log
        self.held = held
        """The unit's lock, ours too until we know how it ended: nobody sweeps its directory away before."""

    @property
    def reused(self) -> bool:
        return self.wrapper is None

    def wait(self, on_report: Callable[[Report], None]) -> End:
        if self.wrapper is None or self.folder is None:
            return End(0)
        with self.held:
            end = self._wait(self.folder, self.wrapper, Tail(self.folder / "metrics.jsonl", on_report))
            if end.code == 0:
                shutil.rmtree(self.folder, ignore_errors=True)
        return end

    def _wait(self, folder: Path, wrapper: "subprocess.Popen[bytes]", reports: Tail) -> End:
        deadline = time.monotonic() + self.runtime.unit_timeout_seconds
        timed_out = False
        try:
            while wrapper.poll() is None:
                reports.read()
                if not timed_out and time.monotonic() > deadline:
                    timed_out = True
                    wrapper.terminate()
                if STOP.is_set():
                    break
                time.sleep(POLL_SECONDS)
        finally:
            self.cancel()
            reports.read()
        if timed_out:
            return End(75, "TimedOut", f"stopped after {self.runtime.unit_timeout_seconds:.0f} s (unit_timeout_seconds of the runtime profile)")
        end = folder / "end.json"
        if not end.exists():
            return End(75, "Killed", "the unit's wrapper was killed")
        return End(**json.loads(end.read_text(encoding="utf-8")))

    def cancel(self) -> None:
        assert self.wrapper is not None
        assert self.folder is not None
        if self.wrapper.poll() is None:
            self.wrapper.terminate()
            self.wrapper.wait()
        if self.wrapper.stdin:
            self.wrapper.stdin.close()
        if (self.folder / "log").exists():
            self.log.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.folder / "log", self.log)
