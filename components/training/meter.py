"""How training is going: a report about once a second, a bar on a terminal, and the numbers that the step leaves behind."""

import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from tqdm import tqdm

from components.progress import report

T = TypeVar("T")

POINTS = 50
"""A run reports at least about this many times, so that its loss is a curve however short it is."""


@dataclass
class History:
    """What happened so far; part of every checkpoint, so that a resumed run ends with the same record."""

    losses: list[float] = field(default_factory=list)
    """mean loss of every step, nats: per learned token, or per pair of picture and caption"""
    rates: list[float] = field(default_factory=list)
    """learning rate of every step (the stage's; a group's own rate is proportional)"""
    tokens: int = 0
    """tokens seen, without padding"""
    samples: int = 0
    """samples seen"""
    curve: list[tuple[int, int, float, float]] = field(default_factory=list)
    """optimizer step, samples seen, loss (nats) and accuracy on the held-out rows"""


class Meter:
    """Speaks for rank 0; silent on the others. Wall-clock numbers go to reports only, never to outputs."""

    def __init__(self, what: str, total: int, start: int, speaks: bool) -> None:
        self.total, self.start, self.speaks = total, start, speaks
        self.began = self.last = time.monotonic()
        self.tokens = self.samples = 0
        self.waited = 0.0
        bar = speaks and sys.stderr.isatty() and not os.environ.get("STOCKPOT_UNIT")
        self.bar = tqdm(total=total, initial=start, desc=what, unit="step", disable=not bar, leave=False)

    def wait_for(self, batches: Iterator[T]) -> T:
        """The next batch. The share of the time that goes by here is reported as `data_wait`."""
        began = time.monotonic()
        batch = next(batches)
        self.waited += time.monotonic() - began
        return batch

    def step(self, done: int, loss: float, rate: float, *, tokens: int, samples: int) -> None:
        """After `done` steps of `total`, counted from the very beginning."""
        self.tokens += tokens
        self.samples += samples
        if not self.speaks:
            return
        self.bar.update()
        now = time.monotonic()
        first_or_last = done in (self.start + 1, self.total)
        if not (first_or_last or now - self.last >= 1 or done % max(1, self.total // POINTS) == 0):
            return
        self.last = now
        seconds, steps = max(now - self.began, 1e-9), done - self.start
        numbers = {
            "loss": loss,
            "lr": rate,
            "samples_per_second": self.samples / seconds,
            "tokens_per_second": self.tokens / seconds,
            "data_wait": self.waited / seconds,
            "eta_seconds": (self.total - done) * seconds / steps,
        }
        self.bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
        report(done, self.total, **numbers)

    def close(self) -> None:
        self.bar.close()
