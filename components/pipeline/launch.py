"""Starts a prepared unit as a local process and waits for it, passing on what it reports."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from components.pipeline.tail import Report, Tail
from components.profile import Profile

POLL_SECONDS = 0.1

STOP = threading.Event()
"""Set when this process was asked to stop (Ctrl-C): running units save and end with 75, and nothing is tried again."""


def run_local(folder: Path, lock: IO[str], profile: Profile, environment: dict[str, str], on_report: Callable[[Report], None]) -> dict[str, Any]:
    """Runs the unit in `folder` in a session of its own; returns how it ended: {code, error, message}.

    The unit inherits the identity's lock, so the lock lives as long as anything of the unit does. On any exception here
    (cancel, time-out) and when this process dies, the unit is told to stop and has the profile's grace time to save.
    """
    env = {**os.environ, **environment, "STOCKPOT_GRACE": str(profile.grace_seconds), "STOCKPOT_UNIT_PROFILE": profile.model_dump_json()}
    env["STOCKPOT_LOCK"] = str(lock.fileno())
    env["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "components.pipeline.wrapper", str(folder)]
    wrapper = subprocess.Popen(command, start_new_session=True, stdin=subprocess.PIPE, pass_fds=[lock.fileno()], env=env, cwd=folder)
    reports = Tail(folder / "metrics.jsonl", on_report)
    deadline = time.monotonic() + profile.unit_timeout_seconds
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
        if wrapper.poll() is None:
            wrapper.terminate()
            wrapper.wait()
        if wrapper.stdin:
            wrapper.stdin.close()
        reports.read()
    end = folder / "end.json"
    if timed_out:
        return {"code": 75, "error": "TimedOut", "message": f"stopped after {profile.unit_timeout_seconds:.0f} s (unit_timeout_seconds of the runtime profile)"}
    if not end.exists():
        return {"code": 75, "error": "Killed", "message": "the unit's wrapper was killed"}
    return json.loads(end.read_text(encoding="utf-8"))
