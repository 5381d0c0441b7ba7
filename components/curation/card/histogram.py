"""Histograms of the scores that a filter gave and of the lengths of answers, as numbers and as a chart."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from components.pages.scale import BOTTOM, LEFT, RIGHT, STEPS, TOP, Scale

BINS = 30
TAIL = 0.99
"""Values above this quantile count in the last bin: a few absurd ones would squeeze all others into the first."""


@dataclass(frozen=True)
class Bar:
    """One bin in SVG units: kept rows stand on the axis, the others on top of them."""

    x: float
    width: float
    kept: float
    kept_height: float
    out: float
    out_height: float


@dataclass(frozen=True)
class Chart:
    """Bars in SVG units; `mark`: the place of the threshold. `x_ticks` and `y_ticks`: (place, label)."""

    bars: list[Bar]
    mark: float | None
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]


def histogram(values: np.ndarray, kept: np.ndarray, threshold: float | None = None) -> dict[str, Any] | None:
    """`{edges, kept, out, threshold}`: rows by value, float64 (rows,), and whether they were kept, bool (rows,); None without a finite value.

    The last bin has no upper end. Whole numbers get bins of whole width.
    """
    finite = np.isfinite(values)
    values, kept = values[finite], kept[finite]
    if not len(values):
        return None
    low, high = float(values.min()), float(np.quantile(values, TAIL, method="higher"))
    high = max(high, threshold) if threshold is not None and np.isfinite(threshold) else high
    if bool(np.all(values == np.rint(values))):
        width = max(1, int(np.ceil((high - low + 1) / BINS)))
        edges = np.arange(low, high + 1 + width, width)
    else:
        edges = np.linspace(low, high, BINS + 1) if high > low else np.array([low, low + (abs(low) or 1.0)])
    bins = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
    counted = [np.bincount(bins[mask], minlength=len(edges) - 1).tolist() for mask in (kept, ~kept)]
    return {"edges": [rounded(e) for e in edges], "kept": counted[0], "out": counted[1], "threshold": None if threshold is None else rounded(threshold)}


def rounded(value: float) -> float | None:
    """Six significant digits, so that the last bits of a sum do not matter; None when it is not finite."""
    return float(f"{value:.6g}") if np.isfinite(value) else None


def chart(counted: dict[str, Any]) -> Chart:
    """A histogram as bars."""
    edges, kept, out = counted["edges"], counted["kept"], counted["out"]
    xs = Scale(edges, MaxNLocator(5, steps=STEPS), LEFT, RIGHT)
    ys = Scale([0, max(1, *(k + o for k, o in zip(kept, out, strict=True)))], MaxNLocator(4, integer=True, steps=STEPS), BOTTOM, TOP)
    bars = []
    for left, right, k, o in zip(edges[:-1], edges[1:], kept, out, strict=True):
        top, base = ys(k + o), ys(k)
        bars.append(Bar(xs(left), round(max(xs(right) - xs(left) - 0.6, 0.6), 1), base, round(BOTTOM - base, 1), top, round(base - top, 1)))
    return Chart(bars, None if counted["threshold"] is None else xs(counted["threshold"]), xs.ticks, ys.ticks)
