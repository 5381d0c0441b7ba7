"""Rows to show: some of those that each filter dropped, tagged or fixed, and some that were kept, drawn by the seed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from components.curation.row import without_marks
from components.data.canonical import read_rows, read_shard, shards
from components.data.images import ImageError
from components.pages.thumbnail import Picture, picture, short

PER_FILTER, KEPT = 8, 12
"""Most examples that are shown."""
MAX_PIXELS = 50_000_000

Place = tuple[str, str]
"""Source and id."""


@dataclass(frozen=True)
class Example:
    """A row as a page shows it; `before`: its messages before a filter changed them."""

    source: str
    id: str
    language: str
    category: str
    text: list[tuple[str, str]]
    """(role, content) of the first messages"""
    before: list[tuple[str, str]]
    picture: Picture | None
    more: int
    """further pictures that are not shown"""
    reason: str
    score: float | None
    detail: str


@dataclass(frozen=True)
class Shown:
    """A row that is to be shown, and what a filter said about it."""

    filter: str
    source: str
    id: str
    reason: str
    score: float | None

    @property
    def place(self) -> Place:
        """Where the row is found."""
        return self.source, self.id


def draw(index: pa.Table, said: pa.Table, most: int, seed: Sequence[int]) -> list[dict[str, Any]]:
    """At most `most` of these rows, in turn from every reason, source and language, as `{source, id, reason, score}`.

    `index`: id, source and language of the rows; `said`: reason and score.
    """
    keys = list(zip(said["reason"].to_pylist(), index["source"].to_pylist(), index["language"].to_pylist(), strict=True))
    groups: dict[tuple[str, ...], list[int]] = {}
    for i in np.random.default_rng(list(seed)).permutation(len(keys)).tolist():
        group = groups.setdefault(keys[i], [])
        if len(group) < most:
            group.append(i)
    turns = chain.from_iterable(zip_longest(*(groups[key] for key in sorted(groups))))
    chosen = [i for i in turns if i is not None][:most]
    return [{"source": keys[i][1], "id": index["id"][i].as_py(), "reason": keys[i][0], "score": said["score"][i].as_py()} for i in chosen]


def fetch(folders: Iterable[Path], places: set[Place]) -> dict[Place, dict[str, Any]]:
    """Rows of canonical shards by source and id; only the row groups that hold one are read whole."""
    found: dict[Place, dict[str, Any]] = {}
    for file in (file for folder in folders for file in shards(folder)):
        small = read_shard(file, ["source", "id"])
        wanted = [i for i, place in enumerate(zip(small["source"].to_pylist(), small["id"].to_pylist(), strict=True)) if place in places]
        for row in read_rows(file, wanted).to_pylist():
            found.setdefault((row["source"], row["id"]), row)
    return found


def example(row: Mapping[str, Any], shown: Shown) -> Example:
    """A fetched row as a page shows it."""
    given = [v for v in row["verdicts"] if v["filter"] == shown.filter and v["reason"] == shown.reason]
    images = row["images"]
    return Example(
        row["source"],
        row["id"],
        row["language"],
        row["category"],
        _text(row["messages"]),
        _text((given[-1].get("before") if given else None) or []),
        _picture(images[0]["bytes"]) if images else None,
        max(len(images) - 1, 0),
        shown.reason,
        shown.score,
        (given[-1].get("detail") if given else "") or "",
    )


def _text(messages: list[dict[str, str]]) -> list[tuple[str, str]]:
    return [(m["role"], short(m["content"])) for m in without_marks(messages)[:2]]


def _picture(image: bytes) -> Picture | None:
    try:
        return picture(image, MAX_PIXELS)
    except ImageError:
        return None
