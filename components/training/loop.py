"""The training loop: one for all stages. A stage differs in what it trains and on what, never in how."""

import contextlib
import json
import logging
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from components.data.loader import Loader
from components.data.prefetch import batches
from components.errors import PermanentError, TransientError
from components.recipe.training import TrainingConfig
from components.training import engine as engines
from components.training.checkpoint import Checkpoints
from components.training.exam import Exam
from components.training.meter import History, Meter
from components.training.objective import OBJECTIVES
from components.training.optimizer import set_rates
from components.training.schedule import factor

logger = logging.getLogger(__name__)

STATE = "state.json"
"""Our own part of a checkpoint, beside DeepSpeed's files."""


@dataclass(frozen=True)
class Run:
    """One training run on this rank."""

    name: str
    config: TrainingConfig
    total: int
    """optimizer steps"""
    layout: dict[str, Any]
    """processes, ZeRO stage, precision: a checkpoint of another layout cannot be resumed"""
    checkpoints: Checkpoints | None
    checkpoint_seconds: float
    loader_workers: int = 0


def fit(engine: Any, loader: Loader, exam: Exam, run: Run, stopped: Callable[[], bool]) -> History:
    """Trains to the last step and returns the record, with an exam now and then. Resumes from the newest whole checkpoint.

    `stopped` is asked once a step; when it says yes on any rank, all save and raise TransientError (exit 75).
    Raises PermanentError when the loss is not a number; the weights of before that step are then lost on purpose.
    """
    start, history = _resume(engine, run)
    objective = OBJECTIVES[run.config.objective]
    saved, saved_at = start, time.monotonic()
    with (
        contextlib.closing(Meter(run.name, run.total, start, speaks=engines.rank() == 0)) as meter,
        batches(loader, range(start, run.total), run.loader_workers) as ready,
    ):
        for step in range(start, run.total):
            torch.manual_seed(step)  # nothing draws today; whatever will, draws the same after a resume
            rate = factor(run.config.schedule, step, run.total)
            set_rates(engine.basic_optimizer, rate)
            batch = meter.wait_for(ready)
            loss, stop, due = _agree(objective.backward(engine, batch), stopped(), time.monotonic() - saved_at >= run.checkpoint_seconds)
            if not math.isfinite(loss):
                raise PermanentError(f"{run.name}: the loss is {loss} at step {step + 1} of {run.total}: lower the learning rate or look at the stage's data")
            engine.step()
            history.losses.append(loss)
            history.rates.append(run.config.lr * rate)
            history.tokens += batch.num_tokens
            history.samples += batch.num_samples
            meter.step(step + 1, loss, run.config.lr * rate, tokens=batch.num_tokens, samples=batch.num_samples)
            if step + 1 in exam.steps:
                history.curve.append((step + 1, history.samples, *exam.take(engine, objective)))
            if run.checkpoints and step + 1 > saved and (stop or (due and step + 1 < run.total)):
                _save(engine, run, step + 1, history)
                saved, saved_at = step + 1, time.monotonic()
            if stop:
                raise TransientError(
                    f"{run.name}: stopped, " + (f"step {saved} saved" if run.checkpoints else f"step {step + 1} lost: no place for checkpoints is set")
                )
    logger.info("%s: optimizer state is %d bytes on this rank", run.name, engines.optimizer_bytes(engine))
    return history


def _agree(loss: float, stop: bool, due: bool) -> tuple[float, bool, bool]:
    """The step's loss over all ranks; whether any was told to stop; whether rank 0's clock asks for a checkpoint."""
    if engines.num_ranks() == 1:
        return loss, stop, due
    votes = torch.tensor([loss, stop, due and engines.rank() == 0], dtype=torch.float64, device=engines.device())
    distributed.all_reduce(votes)
    return votes[0].item(), votes[1].item() > 0, votes[2].item() > 0


def _shared_folder() -> tempfile.TemporaryDirectory[str] | None:
    return tempfile.TemporaryDirectory(prefix="stockpot-checkpoint-") if engines.rank() == 0 else None


def _tell(value: Any) -> Any:
    """Rank 0's value, on every rank."""
    if engines.num_ranks() == 1:
        return value
    box = [value]
    distributed.broadcast_object_list(box, src=0, device=engines.device())
    return box[0]


def _save(engine: Any, run: Run, step: int, history: History) -> None:
    """All ranks write DeepSpeed's files into one local folder; rank 0 adds our state and stores it all."""
    assert run.checkpoints is not None
    folder = _shared_folder()
    try:
        path = Path(_tell(folder.name if folder else None))
        engine.save_checkpoint(str(path), tag="engine", save_latest=False)
        _tell(None)
        if engines.rank() == 0:
            state = {"step": step, "layout": run.layout, "history": asdict(history)}
            (path / STATE).write_text(json.dumps(state), encoding="utf-8")
            began = time.monotonic()
            run.checkpoints.save(step, path)
            logger.info("%s: checkpoint of step %d stored in %.1f s", run.name, step, time.monotonic() - began)
        _tell(None)
    finally:
        if folder:
            folder.cleanup()


def _resume(engine: Any, run: Run) -> tuple[int, History]:
    """Step to go on from, and the record until there: (0, empty) without a usable checkpoint."""
    if not run.checkpoints:
        return 0, History()
    folder = _shared_folder()
    try:
        path = Path(_tell(folder.name if folder else None))
        if _tell(run.checkpoints.load(path) if engines.rank() == 0 else None) is None:
            return 0, History()
        state = json.loads((path / STATE).read_text(encoding="utf-8"))
        if state["layout"] != run.layout:
            logger.warning(
                "%s: the checkpoint of step %d was made with %s, this run has %s: starting from the beginning",
                run.name,
                state["step"],
                state["layout"],
                run.layout,
            )
            return 0, History()
        # DeepSpeed's files are pickles. These are our own: every one has just matched the SHA-256 in our own manifest.
        # Nothing from outside this run's checkpoint store is ever loaded this way.
        engine.load_checkpoint(str(path), tag="engine", load_lr_scheduler_states=False)
        _tell(None)
        logger.info("%s: going on after step %d of %d", run.name, state["step"], run.total)
        return state["step"], History(**state["history"])
    finally:
        if folder:
            folder.cleanup()
