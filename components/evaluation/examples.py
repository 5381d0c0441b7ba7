"""Answers to show: right and wrong ones with their pictures, chosen by a digest, in turn from every kind and language."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain, zip_longest

from components.evaluation.judging import Record
from components.pages.thumbnail import Picture, picture, short


@dataclass(frozen=True)
class Example:
    """One judged answer."""

    benchmark: str
    index: int
    kind: str
    language: str
    question: str
    answer: str
    prediction: str
    correct: bool
    picture: Picture | None


def choose(judged: Iterable[tuple[str, Record]], correct: bool, most: int, max_pixels: int) -> list[Example]:
    """At most `most` right or wrong answers of (benchmark, record) pairs, in turn from every kind and language, each picture once before any comes again.

    The choice depends on benchmark, index and question alone, not on the order of the rows. Pictures with more than `max_pixels` are refused.
    """
    groups: dict[tuple[str, str], list[tuple[str, Record]]] = {}
    for name, record in sorted((pair for pair in judged if pair[1].correct == correct), key=_lot):
        groups.setdefault((record.question.kind, record.question.language), []).append((name, record))
    turns = chain.from_iterable(zip_longest(*(groups[key] for key in sorted(groups))))
    seen: set[bytes] = set()
    new: list[tuple[str, Record]] = []
    again: list[tuple[str, Record]] = []
    for pair in (pair for pair in turns if pair is not None):
        image = pair[1].question.image
        (again if image in seen else new).append(pair)
        seen |= {image} if image else set()
    return [_example(name, record, max_pixels) for name, record in (new + again)[:most]]


def _lot(pair: tuple[str, Record]) -> bytes:
    name, record = pair
    return hashlib.sha256(f"{name}\n{record.question.index}\n{record.question.question}".encode()).digest()


def _example(name: str, record: Record, max_pixels: int) -> Example:
    q, shown = record.question, None if record.question.image is None else picture(record.question.image, max_pixels)
    return Example(name, q.index, q.kind, q.language, short(q.question), short(q.answer), short(record.prediction), record.correct, shown)
