"""What is in a user's files: rows, languages, pictures, questions and answers. The rows go through the same code as in a run."""

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.data.benchmark import Question, read
from components.data.canonical import IMAGE_MARK
from components.data.encode import texts, upright_size
from components.data.images import ImageError, decode
from components.data.ingest import Ingest
from components.errors import DataError
from components.evaluation.judging import judge
from components.models.visual_plan import MAX_ASPECT
from components.recipe.data import Format, Source
from components.survey.formats import BY_PATH, format_of

LOOKED = 5000
"""Rows of a file that are looked at whole; the rest are counted."""

MAX_PIXELS = 50_000_000
"""Pixels that ingest and evaluation allow a picture."""

SHORT = 60
"""Characters: a longer answer is a description, not a class."""


@dataclass
class Rows:
    """A file of training rows."""

    path: Path
    format: Format = "llava"
    rows: int = 0
    """all rows, counted"""
    looked: int = 0
    """usable ones among those that were looked at"""
    refused: Counter[str] = field(default_factory=Counter)
    """reason of quarantine -> rows, among those that were looked at"""
    first_refused: str = ""
    """the sentence of the first of them"""
    languages: Counter[str] = field(default_factory=Counter)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    """width and height of each row's first picture, pixels"""
    turns: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    questions: Counter[str] = field(default_factory=Counter)
    texts: list[str] = field(default_factory=list)
    """what a tokenizer learns from"""
    conversations: list[tuple[list[dict[str, str]], tuple[int, int] | None]] = field(default_factory=list)
    """messages and size of the picture, of every row with at most one"""
    pictures: set[bytes] = field(default_factory=set)
    """digests of the files of pictures"""

    def add(self, sample: dict[str, Any]) -> None:
        """Takes note of a canonical sample."""
        self.looked += 1
        self.languages[sample["language"]] += 1
        for image in sample["images"]:
            self.sizes.append(upright_size(image["bytes"]))
            self.pictures.add(hashlib.sha256(image["bytes"]).digest())
        if len(sample["images"]) <= 1:
            self.conversations.append((sample["messages"], self.sizes[-1] if sample["images"] else None))
        asked, answered = sample["messages"][::2], sample["messages"][1::2]
        self.turns += len(answered)
        self.questions.update(m["content"].replace(IMAGE_MARK, "").strip() for m in asked)
        self.answers.update(m["content"].strip() for m in answered)
        self.texts += texts([sample])

    @property
    def usable(self) -> int:
        """Rows of the whole file that can be used, as far as those that were looked at tell."""
        return round(self.rows * self.looked / max(1, self.looked + self.refused.total()))

    @property
    def classes(self) -> int | None:
        """Number of different answers where they are short and come again and again, else None: the answers are free text."""
        again = self.turns >= 3 * len(self.answers)
        return len(self.answers) if again and max(map(len, self.answers)) <= SHORT else None

    @property
    def language(self) -> str | None:
        """The language of nearly all rows (49 of 50), else None."""
        code, number = self.languages.most_common(1)[0]
        return code if number * 50 >= self.languages.total() * 49 else None


def look_at_rows(path: Path, images: Path | None) -> Rows:
    """Reads rows, in the format that they seem to have, and the headers of their pictures.

    Raises DataError when the file is of no use: broken, empty, or without one good row.
    """
    form = format_of(path)
    folder = images.as_posix() if images and form in BY_PATH else None
    ingest = Ingest(path.stem, Source(format=form, path=path.as_posix(), images=folder, language=None, max_pixels=MAX_PIXELS))
    found = Rows(path, form)
    for sample in ingest.samples():
        found.add(sample)
        if found.looked == LOOKED:
            break
    found.refused.update(ingest.reasons)
    found.rows = ingest.rows_in if found.looked < LOOKED else sum(1 for file in ingest.files for _ in ingest.reader.rows(file.here))
    if first := ingest.first_refused:
        found.first_refused = f"row {first['row']}: {first['detail']}"
    if not found.rows:
        raise DataError(f"{path}: no rows: there is nothing to learn from")
    if not found.looked:
        raise DataError(f"{path}: not one of {found.rows} rows can be used; {found.first_refused}")
    return found


@dataclass
class Questions:
    """A file of questions for evaluation."""

    path: Path
    questions: list[Question]
    pictures: set[bytes]
    """digests of the files of pictures"""

    @property
    def languages(self) -> Counter[str]:
        """Language -> questions."""
        return Counter(q.language for q in self.questions)

    @property
    def kinds(self) -> Counter[str]:
        """Kind of question -> questions."""
        return Counter(q.kind for q in self.questions)


@dataclass
class Files:
    """All that a user brought."""

    train: Rows
    captions: Rows | None
    questions: Questions | None
    images: Path

    @property
    def rows(self) -> list[Rows]:
        """The files of training rows."""
        return [self.train, *([self.captions] if self.captions else [])]


def look_at_questions(path: Path, ruleset: str) -> Questions:
    """Reads a benchmark file and decodes its pictures: a run would stop at a bad one only after hours. Raises DataError that names the row."""
    questions = read(path)
    if not questions:
        raise DataError(f"{path}: no rows under the header: there is nothing to ask")
    judge(questions, [""] * len(questions), ruleset)
    seen: set[bytes] = set()
    for q in questions:
        if q.image is not None and q.image not in seen:
            seen.add(q.image)
            try:
                width, height = decode(q.image, MAX_PIXELS).size
            except ImageError as error:
                raise DataError(f"{q.where}: the image is of no use ({error}): replace it or remove the row") from error
            if max(width, height) > MAX_ASPECT * min(width, height):
                raise DataError(f"{q.where}: the image is {width} x {height}, more than {MAX_ASPECT} times as long as wide: crop it or remove the row")
    return Questions(path, questions, {hashlib.sha256(image).digest() for image in seen})
