"""`report.html`: what a person wants to see of an evaluation, in one file that needs nothing else. Same scores and answers, same bytes."""

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from components.evaluation import confusion, curves, examples
from components.evaluation.judging import Record
from components.evaluation.predict import MAX_PIXELS
from components.evaluation.rulesets import find
from components.evaluation.scores import accuracy
from components.pages import scale
from components.pages.page import render

WRONG, RIGHT = 18, 12
"""Most examples that are shown."""
OPEN = 8
"""Mix-up tables that are open from the start, where there are many."""


def write(
    path: Path,
    *,
    name: str,
    scores: Mapping[str, Any],
    judged: Mapping[str, list[Record]],
    controls: list[str],
    trained: Mapping[str, curves.Curve],
    selection: Mapping[str, Any],
) -> None:
    """Renders the report of the recipe `name`.

    `scores`: the content of scores.json; `judged`: the soup's answers, benchmark -> records; `controls`: the benchmarks with shuffled pictures;
    `trained`: training record of every candidate (of the last stage, where it has none); `selection`: the content of the soup's selection.json.
    """
    counted = [(benchmark, record) for benchmark in scores["counted"] for record in judged[benchmark]]
    records = [record for _, record in counted]
    candidates = {n: c["overall"] for n, c in scores["candidates"].items()}
    text = render(
        Path(__file__).with_name("report.html.jinja"),
        name=name,
        scores=scores,
        questions=len(records),
        models=_models(scores),
        steps={n: c.steps for n, c in trained.items()},
        mean=fmean(candidates.values()) if candidates else None,
        best=max(candidates, key=lambda n: candidates[n]) if candidates else None,
        selection=selection,
        grid=_grid(records),
        baseline=confusion.most_frequent(records),
        controls=controls,
        charts=curves.charts(trained),
        chart_size=scale,
        outlook=curves.outlook(trained),
        confusions=confusion.confusions(records),
        most_open=OPEN,
        wrong=examples.choose(counted, False, WRONG, MAX_PIXELS),
        right=examples.choose(counted, True, RIGHT, MAX_PIXELS),
        ruleset=" ".join((find(scores["ruleset"]).__doc__ or "").split()),
    )
    path.write_text(text, encoding="utf-8")


def _models(scores: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Soup and candidates as `{value, ci95}`, the soup first."""
    return {n: {"value": s["overall"], "ci95": s["overall_ci95"]} for n, s in {"soup": scores, **scores["candidates"]}.items()}


def _grid(records: list[Record]) -> dict[str, dict[str, Any]]:
    """Kind -> language -> accuracy; empty when there is one language, because the kinds say it all then."""
    kinds, languages = sorted({r.question.kind for r in records}), sorted({r.question.language for r in records})
    if len(languages) == 1:
        return {}
    return {k: {lang: accuracy([r for r in records if (r.question.kind, r.question.language) == (k, lang)]) for lang in languages} for k in kinds}
