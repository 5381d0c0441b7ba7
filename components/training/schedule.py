"""Learning rate over time, as a function of the step alone, so that a resumed run needs no scheduler state."""

import math

from components.recipe.training import Schedule


def num_steps(schedule: Schedule, num_rows: int, rows_per_step: int) -> int:
    """Optimizer steps of a run: as given, or as many as `epochs` passes over the rows (samples, or packed rows) need, rounded up."""
    if schedule.steps is not None:
        return schedule.steps
    return max(1, math.ceil((schedule.epochs or 0) * num_rows / rows_per_step - 1e-9))


def factor(schedule: Schedule, step: int, total: int) -> float:
    """Share of the peak rate at `step` (from 0) of `total` steps.

    Rises linearly over the first `warmup` share of the steps (the first step already learns), then falls from 1 towards `min_ratio`
    by a half cosine (Loshchilov and Hutter 2017, without restarts) or a line, or stays.
    """
    warm = math.ceil(schedule.warmup * total)
    if step < warm:
        return (step + 1) / warm
    done = (step - warm) / max(1, total - warm)
    shape = {"cosine": 0.5 * (1 + math.cos(math.pi * done)), "linear": 1 - done, "constant": 1.0}[schedule.kind]
    return schedule.min_ratio + (1 - schedule.min_ratio) * shape
