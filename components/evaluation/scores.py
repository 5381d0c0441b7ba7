"""Scores of one model and the file `scores.json`: accuracies on 0..1 with 95 % confidence intervals, overall and by part."""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.evaluation.judging import Record

Z95 = 1.959963984540054
"""0.975 quantile of the standard normal distribution."""
DIGITS = 6
"""Decimals kept in scores.json."""


def wilson(correct: int, n: int) -> tuple[float, float]:
    """95 % score interval of a proportion (Wilson 1927, JASA 22:209-212); stays inside 0..1 and is sensible at 0 and n of n."""
    p, z2 = correct / n, Z95**2
    centre, half = p + z2 / (2 * n), Z95 * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    low, high = (centre - half) / (1 + z2 / n), (centre + half) / (1 + z2 / n)
    return (0.0 if correct == 0 else low), (1.0 if correct == n else high)  # exact there, but for rounding


def mean_interval(parts: list[tuple[float, float, float]], weights: list[float] | None = None) -> tuple[float, float]:
    """95 % interval of the weighted mean of independent estimates (value, low, high), by MOVER (Zou and Donner 2008, Stat Med 27:1693-1702).

    One part gives that part's own interval.
    """
    weights = weights or [1.0] * len(parts)
    mean, whole = weighted_mean([v for v, _, _ in parts], weights), math.fsum(weights)
    below = math.sqrt(math.fsum((w * (v - low)) ** 2 for w, (v, low, _) in zip(weights, parts, strict=True))) / whole
    above = math.sqrt(math.fsum((w * (high - v)) ** 2 for w, (v, _, high) in zip(weights, parts, strict=True))) / whole
    return mean - below, mean + above


def weighted_mean(values: list[float], weights: list[float]) -> float:
    """The arithmetic mean where all weights are 1."""
    return math.fsum(w * v for w, v in zip(weights, values, strict=True)) / math.fsum(weights)


def accuracy(records: list[Record]) -> dict[str, Any]:
    """`{value, n, ci95}`; value and ci95 are None without records."""
    n, correct = len(records), sum(r.correct for r in records)
    if not n:
        return {"value": None, "n": 0, "ci95": None}
    return {"value": correct / n, "n": n, "ci95": list(wilson(correct, n))}


def breakdown(records: list[Record]) -> dict[str, Any]:
    """`{language: {name: accuracy}, kind: {name: accuracy}}`."""
    return {
        "language": {name: accuracy([r for r in records if r.question.language == name]) for name in sorted({r.question.language for r in records})},
        "kind": {name: accuracy([r for r in records if r.question.kind == name]) for name in sorted({r.question.kind for r in records})},
    }


def model_scores(digest: str, judged: dict[str, list[Record]], counted: Mapping[str, float]) -> dict[str, Any]:
    """Scores of one model. `judged`: benchmark -> records; `counted`: weights of the benchmarks, none of them empty, that make the overall score.

    `overall` is the mean of their values (POINTS1.5 and OpenCompass average benchmarks, not questions); `by` pools their questions.
    """
    benchmarks = {name: {**accuracy(records), "failed": sum(r.failed for r in records), "by": breakdown(records)} for name, records in judged.items()}
    parts = [benchmarks[name] for name in counted]
    return {
        "model_digest": digest,
        "overall": weighted_mean([p["value"] for p in parts], list(counted.values())),
        "overall_ci95": list(mean_interval([(p["value"], *p["ci95"]) for p in parts], list(counted.values()))),
        "by": breakdown([r for name in counted for r in judged[name]]),
        "benchmarks": benchmarks,
    }


def document(soup: dict[str, Any], candidates: dict[str, dict[str, Any]], counted: Mapping[str, float], ruleset: str) -> dict[str, Any]:
    """The content of scores.json: the soup's scores at the top, each candidate's under `candidates`."""
    head = {"schema": 1, "split": "report", "ruleset": ruleset, "judge": "exact_matching", "counted": list(counted)}
    if set(counted.values()) != {1.0}:
        head["weights"] = dict(counted)
    return _rounded({**head, **soup, "candidates": candidates})


def write(path: Path, content: dict[str, Any]) -> None:
    """Writes JSON with sorted keys: equal scores give equal bytes."""
    path.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def model_digest(folder: Path) -> str:
    """SHA-256 (hex) over the bytes of model.safetensors followed by those of config.json in a model directory."""
    digest = hashlib.sha256()
    for name in ("model.safetensors", "config.json"):
        with (folder / name).open("rb") as f:
            while block := f.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _rounded(node: Any) -> Any:
    if isinstance(node, float):
        return round(node, DIGITS)
    if isinstance(node, dict):
        return {k: _rounded(v) for k, v in node.items()}
    return [_rounded(v) for v in node] if isinstance(node, list) else node
