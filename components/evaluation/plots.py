"""`scores.png`: the overall score of soup and candidates, and the same by kind of question."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

SOUP = "#c8553d"
CANDIDATES = ("#8fa9c4", "#6c8bab", "#4d6f91", "#345676", "#b9c8d8", "#22405c")
"""Repeated when there are more candidates."""
INK, MUTED = "#222222", "#777777"
DPI = 120


def plot(content: dict[str, Any], path: Path) -> None:
    """Draws the content of scores.json as PNG. Deterministic bytes: no user style, no software version in the file."""
    models = {**content["candidates"], "soup": content}
    kinds = sorted({k for m in models.values() for k in m["by"]["kind"]})
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update({"font.size": 11, "axes.edgecolor": MUTED, "text.color": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": MUTED})
        left, right = 1.2 + 0.75 * len(models), 1.2 + len(kinds) * (0.35 + 0.45 * len(models))
        figure = Figure(figsize=(min(left + right, 40), 5.0), layout="constrained")
        FigureCanvasAgg(figure)
        overall, by_kind = figure.subplots(1, 2, width_ratios=[left, right], sharey=True)
        _overall(overall, models)
        _by_kind(by_kind, models, kinds)
        figure.suptitle(_title(content), fontsize=13)
        figure.supxlabel("Error bars: 95 % confidence intervals.", fontsize=9, color=MUTED)
        figure.savefig(path, format="png", dpi=DPI, metadata={"Software": None})


def _title(content: dict[str, Any]) -> str:
    counted = content["counted"]
    questions = sum(content["benchmarks"][name]["n"] for name in counted)
    return f"Accuracy by free generation on {', '.join(counted)} ({questions} questions)"


def _colours(models: dict[str, Any]) -> dict[str, str]:
    return {name: SOUP if name == "soup" else CANDIDATES[i % len(CANDIDATES)] for i, name in enumerate(models)}


def _overall(axes: Axes, models: dict[str, Any]) -> None:
    colours = _colours(models)
    for x, (name, scores) in enumerate(models.items()):
        _bar(axes, x, 0.72, {"value": scores["overall"], "ci95": scores["overall_ci95"]}, colours[name])
    axes.set_xticks(range(len(models)), list(models), rotation=0 if max(map(len, models)) < 9 else 30)
    axes.set_xlim(-0.7, len(models) - 0.3)
    _dress(axes, "overall")
    axes.set_ylabel("accuracy")


def _by_kind(axes: Axes, models: dict[str, Any], kinds: list[str]) -> None:
    colours, width = _colours(models), 0.84 / len(models)
    for i, (name, scores) in enumerate(models.items()):
        for x, kind in enumerate(kinds):
            _bar(axes, x + (i - (len(models) - 1) / 2) * width, width * 0.92, scores["by"]["kind"][kind], colours[name])
        axes.bar(0, 0, color=colours[name], label=name)
    axes.set_xticks(range(len(kinds)), kinds)
    axes.set_xlim(-0.6, len(kinds) - 0.4)
    _dress(axes, "by kind of question")
    if len(models) > 1:
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)


def _bar(axes: Axes, x: float, width: float, part: dict[str, Any], colour: str) -> None:
    value, (low, high) = part["value"], part["ci95"]
    axes.bar(x, value, width, color=colour, zorder=2)
    axes.errorbar(x, value, [[max(value - low, 0)], [max(high - value, 0)]], color=INK, linewidth=1, capsize=3, zorder=3)
    axes.annotate(f"{value:.2f}", (x, high), (0, 3), textcoords="offset points", ha="center", va="bottom", fontsize=9)


def _dress(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=11, color=MUTED, pad=20)  # above the values of bars at 1
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.8, zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="both", length=0)
