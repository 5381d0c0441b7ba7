"""What the evaluation files of a recipe show and ask, in the form in which training rows are compared with it."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from components.curation.near_duplicates import point
from components.curation.ngrams import ngrams
from components.curation.perceptual_hash import distances, perceptual_hash
from components.curation.row import Picture, Row, without_marks
from components.curation.words import words
from components.data.benchmark import read
from components.data.images import ImageError

FREQUENT = 10
"""A run of words that stands in more different questions is how the benchmark asks, not what."""
SELECTION = "selection"
"""Name of the file that the soup is chosen by."""


class Match(NamedTuple):
    """A question that a row gives away: `rule` is `pixels`, `picture` or `text`, `score` how near it is, 0 to 1."""

    rule: str
    benchmark: str
    question: int
    score: float


class _Asked(NamedTuple):
    benchmark: str
    question: int
    words: str


class _Shown:
    """A picture and all questions about it; without `look` where it cannot be decoded."""

    def __init__(self, picture: Picture):
        self.digest = picture.digest
        self.questions: list[_Asked] = []
        try:
            self.look: tuple[int, np.ndarray] | None = perceptual_hash(picture.sampled), point(picture.thumbnail)
        except ImageError:
            self.look = None  # an evaluation says so itself


def files(params: Mapping[str, Any]) -> dict[str, str]:
    """Evaluation file -> its name, of the recipe's `evaluate.benchmarks` and `soup.selection`; rows that are held out of training are no file."""
    named = {name: b["path"] for name, b in params.get("evaluate", {}).get("benchmarks", {}).items()} | {SELECTION: params.get("soup", {}).get("selection")}
    found: dict[str, str] = {}
    for name, path in named.items():
        if path is not None:
            found.setdefault(path, name)
    return found


class EvaluationSet:
    """All questions and pictures of some evaluation files."""

    def __init__(self, named: Mapping[Path, str], length: int):
        """Reads the files as an evaluation does. `length`: words of a run. Raises DataError for a file that an evaluation would refuse too."""
        self.length = length
        self.sizes = dict.fromkeys(named.values(), 0)
        """benchmark -> questions"""
        shown: dict[bytes, _Shown] = {}
        texts: dict[str, _Asked] = {}
        for path, name in named.items():
            for question in read(path):
                asked = _Asked(name, question.index, _padded(question.question))
                self.sizes[name] += 1
                texts.setdefault(asked.words, asked)
                if question.image is not None:
                    file = hashlib.sha256(question.image).digest()
                    if file not in shown:
                        shown[file] = _Shown(Picture({"bytes": question.image, "path": question.where}))
                    shown[file].questions.append(asked)
        self._digests = {s.digest: s.questions[0] for s in reversed(shown.values())}
        self._shown = [s for s in shown.values() if s.look]
        self._hashes = np.array([s.look[0] for s in self._shown if s.look], dtype=np.uint64)
        runs: dict[int, list[_Asked]] = defaultdict(list)
        for asked in texts.values():
            for run in set(ngrams(asked.words, length)):
                runs[run].append(asked)
        self._runs = {run: asked for run, asked in runs.items() if len(asked) <= FREQUENT}
        self._lengths = Counter(asked for several in self._runs.values() for asked in several)

    def match(self, row: Row, bits: int, percent: float) -> Match | None:
        """The question that a row gives away; None when it gives none away.

        By a picture with equal pixels; by a picture that differs in at most `bits` of its hash and correlates by `percent`, when the row asks the
        same; or by a run of words.
        """
        for picture in row.pictures:
            if asked := self._digests.get(picture.digest):
                return Match("pixels", asked.benchmark, asked.question, 1.0)
        return self._near(row, bits, percent) or self._text(row)

    def _near(self, row: Row, bits: int, percent: float) -> Match | None:
        said: list[str] | None = None
        for picture in row.pictures if len(self._hashes) else []:
            try:
                close = np.flatnonzero(distances(perceptual_hash(picture.sampled), self._hashes) <= bits).tolist()
                look = point(picture.thumbnail) if close else None
            except ImageError:
                continue
            said = [_padded(m["content"]) for m in without_marks(row.messages) if m["role"] == "user"] if close and said is None else said
            for shown in (self._shown[i] for i in close):
                assert shown.look is not None
                correlation = 1 - float(((shown.look[1] - look) ** 2).sum()) / 2
                asked = next((a for a in shown.questions if any(a.words in text for text in said or [])), None)
                if asked and correlation * 100 >= percent:
                    return Match("picture", asked.benchmark, asked.question, correlation)
        return None

    def _text(self, row: Row) -> Match | None:
        if not self._runs:
            return None
        met = Counter(a for m in row.messages for run in set(ngrams(m["content"], self.length)) for a in self._runs.get(run, ()))
        if not met:
            return None
        asked = min(met, key=lambda a: (-met[a] / self._lengths[a], a))
        return Match("text", asked.benchmark, asked.question, met[asked] / self._lengths[asked])


def _padded(text: str) -> str:
    """The words of a text between spaces, so that one text is in another only as whole words."""
    return f" {' '.join(words(text))} "
