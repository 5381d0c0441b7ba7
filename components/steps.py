"""`python -m components.steps NAME`: the body of every pipeline stage, run in the stage's workspace.

Inside a unit (`STOCKPOT_UNIT` names its directory) it also leaves `exit.json` there, because DVC does not pass exit codes
through, and it watches its lifeline: a pipe on stdin that only the unit's wrapper holds.
"""

import gc
import importlib
import json
import logging
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from components.errors import TransientError, explain
from components.step import Step
from components.steps_table import module_of


def run(name: str) -> None:
    """Runs the step `name` in the current directory. Raises StockpotError for what a user can mend."""
    step = Step.open(name)
    module = importlib.import_module(module_of(name))
    shutil.rmtree(step.data.parent, ignore_errors=True)
    step.data.mkdir(parents=True)
    module.run(step)


def _stopped(*_: Any) -> None:
    raise TransientError("stopped by a signal")


def _lifeline(grace: float) -> None:
    """End of file on stdin = the wrapper is dead: stop as for SIGTERM, then take the whole process group along."""
    os.read(0, 1)  # not sys.stdin: a buffered read would hold its lock at exit
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace)
    os.killpg(0, signal.SIGKILL)


def _end(error: BaseException | None) -> dict[str, Any]:
    known = explain(error) if error else None
    if error is None:
        return {"code": 0, "error": "", "message": ""}
    return {"code": known.code if known else 1, "error": type(known or error).__name__, "message": str(known or error)}


def main(name: str) -> int:
    """Runs a step and returns its exit code: 0, 1 (a bug), 2 (the user must change something), 75 (try again later)."""
    unit = os.environ.get("STOCKPOT_UNIT")
    signal.signal(signal.SIGTERM, _stopped)
    if unit:
        threading.Thread(target=_lifeline, args=(float(os.environ["STOCKPOT_GRACE"]),), daemon=True).start()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    error: BaseException | None = None
    try:
        run(name)
    except BaseException as raised:
        error = raised
    end = _end(error)
    if error is not None:
        sys.stderr.write(f"{name}: {end['message']}\n")
        if end["code"] == 1 or os.environ.get("STOCKPOT_DEBUG"):
            traceback.print_exception(error)
    if unit:
        Path(unit, "reserve").unlink(missing_ok=True)  # room for these bytes, also on a full disk
        path = Path(unit, "exit.json")
        path.with_suffix(".new").write_text(json.dumps(end), encoding="utf-8")
        path.with_suffix(".new").replace(path)
    return end["code"]


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m components.steps NAME")
    gc.set_threshold(50_000, 20, 20)  # with Python's own, 700, the collector looks through torch and transformers again and again while they load
    code = main(sys.argv[1])
    gc.freeze()  # nor at the end
    sys.exit(code)
