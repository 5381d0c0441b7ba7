"""From values to places in a drawing: one axis of an SVG chart, with its ticks."""

import math
from collections.abc import Sequence

from matplotlib.ticker import Locator

WIDTH, HEIGHT = 420, 230
LEFT, RIGHT, TOP, BOTTOM = 40, 404, 8, 202
"""The drawing and the plot in it, SVG units."""
STEPS = (1, 2, 5, 10)
"""Distances between marks on an axis."""


class Scale:
    """From values to SVG units: the smallest at `start`, the largest at `end`, both widened to the next tick. `ticks`: (place, label)."""

    def __init__(self, values: Sequence[float], locator: Locator, start: float, end: float, log: bool = False) -> None:
        self.start, self.end, self.log = start, end, log
        low, high = min(values), max(values)
        ticks = [float(t) for t in locator.tick_values(low, high)]
        self.low, self.high = max([t for t in ticks if t <= low] or [low]), min([t for t in ticks if t >= high] or [high])
        self.high += (abs(self.low) or 1) * (self.low == self.high)
        self.ticks = [(self(t), f"{t:g}") for t in ticks if self.low <= t <= self.high]

    def __call__(self, value: float) -> float:
        """The place of a value, SVG units."""
        at, low, high = (math.log(v) if self.log else v for v in (value, self.low, self.high))
        return round(self.start + (self.end - self.start) * (at - low) / (high - low), 1)
