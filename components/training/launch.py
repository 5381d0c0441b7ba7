"""Several training processes of one unit on this machine: torchrun starts them, we pass signals on and bring one error back."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from components import errors
from components.profile import Profile
from components.training import worker
from components.training.worker import WORKER_ERRORS


def run_workers(name: str, profile: Profile) -> None:
    """Runs `components.training.worker NAME` on `profile.processes` processes, in our own process group, until all end.

    SIGTERM and SIGINT go on to all of them; they save and end. Raises the error of the rank that failed first.
    torchrun finds a free port by itself (`--standalone`), so units can run side by side.
    """
    with tempfile.TemporaryDirectory(prefix="stockpot-workers-") as folder:
        command = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            f"--nproc_per_node={profile.processes}",
            "-m",
            worker.__name__,
            name,
        ]
        environment = {**os.environ, WORKER_ERRORS: folder, "OMP_NUM_THREADS": str(profile.threads)}
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL)

        def forward(number: int, _: Any) -> None:
            process.send_signal(number)

        before = {number: signal.signal(number, forward) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            code = process.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if code:
            raise _error(Path(folder), name, code)


def _error(folder: Path, name: str, code: int) -> Exception:
    """The error of the rank that failed first: the others only lost their neighbour."""
    ends = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"), key=lambda p: p.stat().st_mtime_ns)]
    if not ends:
        return RuntimeError(f"{name}: the training processes ended with code {code}; a process that was killed leaves no other trace (out of memory?)")
    first = ends[0]
    if first["known"]:
        return getattr(errors, first["class"])(first["message"])
    return RuntimeError(f"{name}: {first['class']}: {first['message']} (the worker's traceback is above)")
