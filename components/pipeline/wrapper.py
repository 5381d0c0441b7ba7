"""`python -m components.pipeline.wrapper DIR`: the process around one attempt.

Owns its process group, passes signals on, waits until all are gone, reads exit.json.

Exit codes do not pass through DVC, and a SIGTERM to it would leave the step alone: that is why this process exists. It imports next to nothing.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

POLL_SECONDS = 0.02


def supervise(folder: Path, grace: float, log: int, meanwhile: Callable[[], None] = lambda: None) -> int:
    """Runs the worker of the unit in `folder`, its output to the file descriptor `log`; returns the step's own exit code.

    SIGTERM and SIGINT are passed to the group; whoever is left after `grace` seconds is killed. end.json says how it ended.
    `meanwhile` is called again and again while it runs.
    """
    stopped: list[float] = []
    held = [int(os.environ["STOCKPOT_LOCK"])] if "STOCKPOT_LOCK" in os.environ else []
    worker = subprocess.Popen(
        [sys.executable, "-m", "components.pipeline.worker", str(folder)],
        stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True, pass_fds=held,
        env={**os.environ, "STOCKPOT_GRACE": str(grace)},
    )  # fmt: skip

    def forward(*_: Any) -> None:
        stopped.append(time.monotonic())
        _kill(worker.pid, signal.SIGTERM)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, forward)
    while worker.poll() is None or _left(worker.pid):  # the shell may be gone while the step still saves
        if stopped and time.monotonic() - stopped[0] > grace:
            _kill(worker.pid, signal.SIGKILL)
            worker.wait()
            break
        meanwhile()
        time.sleep(POLL_SECONDS)
    end = _end(folder, worker.returncode)
    (folder / "end.json").write_text(json.dumps(end), encoding="utf-8")
    return end["code"]


def _left(group: int) -> bool:
    """Whether anybody of the group lives. The first process of a container inherits the orphans, and a dead one counts until it is waited for."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-group, os.WNOHANG)[0]:
            pass
    return _kill(group, 0)


def _lifeline() -> None:
    """End of file on stdin = whoever started us is dead: stop as for SIGTERM."""
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)


def _end(folder: Path, returncode: int) -> dict[str, Any]:
    path = folder / "exit.json"
    said = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"code": 0, "error": "", "message": ""}
    if returncode and not said["code"]:
        return {"code": 75, "error": "Killed", "message": "killed by a signal: out of memory, evicted, or its time to stop was over"}
    return said


def _kill(group: int, number: int) -> bool:
    try:
        os.killpg(group, number)
        return True
    except (ProcessLookupError, PermissionError):
        return False


if __name__ == "__main__":
    threading.Thread(target=_lifeline, daemon=True).start()
    unit = Path(sys.argv[1]).absolute()
    with (unit / "log").open("ab") as file:
        sys.exit(supervise(unit, float(os.environ.get("STOCKPOT_GRACE", "20")), file.fileno()))
