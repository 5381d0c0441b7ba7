"""How long the answers of the kept rows are: in tokens where a model of the recipe is at hand, and in words and characters."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from components.curation.card.histogram import histogram, rounded
from components.curation.words import words
from components.data.canonical import read_shard, shards
from components.models.processor import Processor

MOST_ROWS = 200_000
"""Of a larger corpus the answers of a share of the rows are measured, drawn by the seed."""


def lengths(data: Path, sources: Sequence[str], seed: int, tokenizer: Path | None) -> dict[str, Any]:
    """`{unit, rows, measured, sources: {name: {answers, tokens, words, characters}}, histogram}`.

    `unit`: what the histogram counts: tokens of the model in the folder `tokenizer`, or words. Each length has `mean, p5, median, p95, max, sum`.
    """
    processor = Processor.from_pretrained(tokenizer) if tokenizer else None
    files = [(source, file) for source in sources for file in shards(data / source)]
    rows = sum(read_shard(file, ["id"]).num_rows for _, file in files)
    chosen = np.ones(rows, dtype=bool) if rows <= MOST_ROWS else np.random.default_rng(seed).permutation(rows) < MOST_ROWS
    measured: dict[str, dict[str, list[int]]] = {source: {"tokens": [], "words": [], "characters": []} for source in sources}
    start = 0
    for source, file in files:
        conversations = read_shard(file, ["messages"])["messages"].to_pylist()
        for conversation, mine in zip(conversations, chosen[start : start + len(conversations)], strict=True):
            for message in conversation if mine else []:
                if message["role"] == "assistant":
                    _measure(message["content"].strip(), processor, measured[source])
        start += len(conversations)
    unit = "tokens" if processor else "words"
    every = np.array([n for by_unit in measured.values() for n in by_unit[unit]], dtype=np.float64)
    return {
        "unit": unit,
        "rows": rows,
        "measured": int(chosen.sum()),
        "sources": {source: _summary(by_unit) for source, by_unit in measured.items()},
        "histogram": histogram(every, np.ones(len(every), dtype=bool)),
    }


def _measure(answer: str, processor: Processor | None, into: dict[str, list[int]]) -> None:
    if processor:
        into["tokens"].append(len(processor.text_ids(answer)))
    into["words"].append(len(words(answer)))
    into["characters"].append(len(answer))


def _summary(by_unit: dict[str, list[int]]) -> dict[str, Any]:
    numbers = {unit: np.array(values) for unit, values in by_unit.items() if values}
    return {"answers": len(by_unit["characters"]), **{unit: _figures(values) for unit, values in numbers.items()}}


def _figures(values: np.ndarray) -> dict[str, Any]:
    p5, median, p95 = (int(q) for q in np.quantile(values, [0.05, 0.5, 0.95], method="lower"))
    return {"mean": rounded(float(values.mean())), "p5": p5, "median": median, "p95": p95, "max": int(values.max()), "sum": int(values.sum())}
