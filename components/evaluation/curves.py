"""How the compared models learned: their training records read, drawn as lines, and the question answered whether more time would help."""

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from matplotlib.ticker import LogLocator, MaxNLocator

from components.pages.scale import BOTTOM, LEFT, RIGHT, STEPS, TOP, Scale

POINTS = 30
"""A training loss is drawn as the means of about this many blocks of steps."""
LATE = 0.5
"""Learning from this share of the steps on says whether more would help."""
LEVEL = 0.01
"""A smaller late change of accuracy than one point counts as none."""

Line = list[tuple[float, float]]


@dataclass(frozen=True)
class Curve:
    """One training run: (step, value) of its training loss and, where the stage held rows out, of their loss and accuracy."""

    loss: Line
    held_loss: Line
    held_accuracy: Line

    @property
    def steps(self) -> int:
        """Optimizer steps."""
        return int(self.loss[-1][0])


@dataclass(frozen=True)
class Series:
    """A line of a chart: `colour` is its model's number, `path` its points in SVG units."""

    name: str
    colour: int
    held_out: bool
    path: str


@dataclass(frozen=True)
class Chart:
    """Lines in SVG units. `x_ticks` and `y_ticks`: (place, label)."""

    title: str
    series: list[Series]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]


def read(folder: Path) -> Curve:
    """The records beside the model folder `out/STAGE`: loss.csv and, where rows were held out, curve.csv."""
    held = folder / "curve.csv"
    return Curve(
        _column(folder / "loss.csv", "loss"),
        _column(held, "held_loss") if held.is_file() else [],
        _column(held, "held_accuracy") if held.is_file() else [],
    )


def charts(curves: Mapping[str, Curve]) -> list[Chart]:
    """Held-out accuracy, where there is any, and the losses; the curves' order gives the colours."""
    accuracy = [(name, i, True, c.held_accuracy) for i, (name, c) in enumerate(curves.items()) if c.held_accuracy]
    losses = [(name, i, False, _blocks(c.loss)) for i, (name, c) in enumerate(curves.items())]
    losses += [(name, i, True, c.held_loss) for i, (name, c) in enumerate(curves.items()) if c.held_loss]
    made = [_chart("accuracy on held-out rows", accuracy)] if accuracy else []
    positive = all(y > 0 for *_, line in losses for _, y in line)
    return [*made, _chart("loss, nats per token", losses, log=positive)]


def outlook(curves: Mapping[str, Curve]) -> str:
    """One sentence: would more time help?"""
    late = _late_change([c.held_accuracy for c in curves.values() if c.held_accuracy])
    if late is None:
        return "There is no curve of held-out rows that could tell: compare the candidates' steps and scores above."
    change, noise = late
    amount, when = f"{abs(100 * change):.1f} ± {100 * noise:.1f} points", "over the second half of the training"
    if abs(change) < max(LEVEL, noise):
        return f"The curve is level, {'-' if change < 0 else '+'}{amount} {when}: more time alone would hardly help."
    if change > 0:
        return f"The curve still rises, by {amount} {when}: more time would probably help."
    return f"The curve falls, by {amount} {when}: more time would not help; more or more varied rows might."


def _late_change(lines: list[Line]) -> tuple[float, float] | None:
    """Change of a value from LATE of the steps to their end, and twice its standard error; None for too few points.

    Least squares: one slope for all lines, over the share of the steps, and a height for each.
    """
    late = [[(step / line[-1][0], value) for step, value in line if step >= LATE * line[-1][0]] for line in lines]
    centred = [(x - fmean(x for x, _ in points), y - fmean(y for _, y in points)) for points in late for x, y in points]
    freedom, spread = len(centred) - len(late) - 1, sum(x * x for x, _ in centred)
    if freedom < 1 or not spread:
        return None
    slope = sum(x * y for x, y in centred) / spread
    error = math.sqrt(sum((y - slope * x) ** 2 for x, y in centred) / freedom / spread)
    return slope * (1 - LATE), 2 * error * (1 - LATE)


def _column(path: Path, name: str) -> Line:
    with path.open(encoding="utf-8", newline="") as f:
        return [(float(row["step"]), float(row[name])) for row in csv.DictReader(f)]


def _blocks(line: Line) -> Line:
    """Means of consecutive blocks of points: a noisy line of thousands of points made readable."""
    size = max(1, len(line) // POINTS)
    blocks = [line[i : i + size] for i in range(0, len(line), size)]
    return [(fmean(x for x, _ in block), fmean(y for _, y in block)) for block in blocks]


def _chart(title: str, lines: list[tuple[str, int, bool, Line]], log: bool = False) -> Chart:
    xs = Scale([x for *_, line in lines for x, _ in [(0, 0), *line]], MaxNLocator(5, integer=True, steps=STEPS), LEFT, RIGHT)
    ys = Scale([y for *_, line in lines for _, y in line], LogLocator(subs=STEPS[:-1]) if log else MaxNLocator(5, steps=STEPS), BOTTOM, TOP, log)
    series = [Series(name, colour, held, " ".join(f"{xs(x)},{ys(y)}" for x, y in line)) for name, colour, held, line in lines]
    return Chart(title, series, xs.ticks, ys.ticks)
