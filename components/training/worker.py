"""`python -m components.training.worker NAME`: one rank of a training step, started by torchrun in the step's workspace."""

import gc
import json
import logging
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from components.errors import StockpotError, TransientError, explain
from components.profile import step_profile
from components.step import Step

WORKER_ERRORS = "STOCKPOT_WORKER_ERRORS"
"""Names the folder in which a worker that fails leaves `<rank>.json` with class, code and sentence."""


def _stopped(*_: Any) -> None:
    raise TransientError("stopped by a signal")


def _note_error(error: StockpotError | None, bug: BaseException, rank: int) -> None:
    """Leaves this rank's error for `components.training.launch`."""
    known = error or bug
    end = {"class": type(known).__name__, "message": str(known), "known": error is not None}
    Path(os.environ[WORKER_ERRORS], f"{rank}.json").write_text(json.dumps(end), encoding="utf-8")


def main(name: str) -> int:
    """Runs this rank and returns its exit code, as `components.steps` does; the error goes to the parent as a file."""
    from components.training import engine  # here: who starts the workers imports this module and needs no torch
    from components.training.rank import train

    signal.signal(signal.SIGTERM, _stopped)
    signal.signal(signal.SIGINT, _stopped)
    logging.basicConfig(level=logging.INFO if engine.rank() == 0 else logging.WARNING, format="%(message)s")
    try:
        train(Step.open(name), step_profile())
    except BaseException as error:
        known = explain(error)
        _note_error(known, error, engine.rank())
        if known is None:
            traceback.print_exc()
        return known.code if known else 1
    engine.leave()
    return 0


if __name__ == "__main__":
    gc.set_threshold(50_000, 20, 20)  # as `components.steps`
    code = main(sys.argv[1])
    gc.freeze()
    sys.exit(code)
