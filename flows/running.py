"""Programs that live on after the command that started them: one file each says which process it is, and it is ended with all that it started."""

import contextlib
import json
import os
import signal
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

LEADER_SECONDS = 4.0
"""Patience with a leader whose processes have all ended: Prefect's worker may not end by itself for a minute, its server for ten seconds."""


@dataclass(frozen=True)
class Running:
    """A program that leads a session of its own; pid and time of birth together name one process."""

    name: str
    pid: int
    born: float
    """Seconds since the epoch."""
    address: str
    file: str
    """Where this is written down."""

    def leader(self) -> psutil.Process | None:
        """The process itself, while it lives."""
        with contextlib.suppress(psutil.NoSuchProcess):
            found = psutil.Process(self.pid)
            return found if abs(found.create_time() - self.born) < 1 and found.status() != psutil.STATUS_ZOMBIE else None
        return None

    def family(self) -> list[psutil.Process]:
        """All that is left of it: its session, which may outlive its leader, and what the session's processes have started."""
        if self.leader() is None and psutil.pid_exists(self.pid):
            return []  # a number is given to somebody else only when nothing of the session is left
        session = [p for p in psutil.process_iter() if _session(p) == self.pid]
        return list({p.pid: p for p in [*session, *(child for p in session for child in _children(p))]}.values())

    def end(self, patience: float) -> bool:
        """SIGTERM to its session, SIGKILL to who is left after `patience` seconds, the leader a little later. False when nothing of it was there."""
        family = self.family()
        if family:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGTERM)
            psutil.wait_procs([p for p in family if p.pid != self.pid], patience)
            psutil.wait_procs(family, LEADER_SECONDS)
            left = list({*(p for p in family if p.is_running()), *self.family()})
            for process in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(left, 5)
        Path(self.file).unlink(missing_ok=True)
        return bool(family)


def launch(name: str, command: list[str], environment: dict[str, str], folder: Path, address: str) -> Running:
    """Starts a program; its output goes to `folder`/NAME.log, what it is to `folder`/NAME.json."""
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True)
    running = Running(name, process.pid, psutil.Process(process.pid).create_time(), address, str(folder / f"{name}.json"))
    Path(running.file).write_text(json.dumps(asdict(running)), encoding="utf-8")
    return running


def recorded(folder: Path) -> list[Running]:
    """Every program that was launched in `folder` and not ended there; it may have ended by itself."""
    return [Running(**json.loads(file.read_text(encoding="utf-8"))) for file in sorted(folder.glob("*.json"))]


def _session(process: psutil.Process) -> int | None:
    with contextlib.suppress(OSError):
        return os.getsid(process.pid)
    return None


def _children(process: psutil.Process) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.children(recursive=True)
    return []
