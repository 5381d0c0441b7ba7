"""Benchmark files: VLMEvalKit-style TSV, read whole and checked row by row before a model is loaded.

Columns `index` (unique integer), `image` (base64, or the index of the row that holds the picture, or empty), `question`,
`answer`; optional `category` (the kind of question), `language` (else told by the script), `hint`, and options `A`, `B`, ... Others are not read.
Commas or semicolons instead of tabs are read as well.
"""

import base64
import csv
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from string import ascii_uppercase

from components.data.language import language_of
from components.errors import DataError

REQUIRED = ("index", "image", "question", "answer")
REFERENCE_CHARS = 64
"""An `image` cell of at most so many characters is the index of another row (VLMEvalKit, ImageBaseDataset.__init__)."""
LARGEST_CELL = 2**31 - 1
"""Characters; csv's own limit of 131072 is smaller than a photograph."""


@dataclass(frozen=True)
class Question:
    """One row of a benchmark. `where` names file and row for error messages, `image` is the encoded picture file, if any."""

    where: str
    index: int
    image: bytes | None
    question: str
    answer: str
    kind: str = "general"
    language: str = "en"
    hint: str = ""
    options: dict[str, str] = field(default_factory=dict)
    """letter -> text, where the file has columns A, B, ..."""


def read(path: Path) -> list[Question]:
    """All questions of a TSV in file order; a file with a header and no rows gives an empty list.

    Raises DataError that names file and row for a missing column, an index that is no integer or not unique, an empty question or
    answer, a picture that is not base64, and a reference to a row without a picture.
    """
    rows = _rows(path)
    _unique([row for row, _ in rows], [cells["index"] for _, cells in rows])
    pictures = {int(cells["index"]): _picture(where, cells["image"]) for where, cells in rows if len(cells["image"]) > REFERENCE_CHARS}
    return [_question(where, cells, pictures) for where, cells in rows]


def shuffle_images(questions: list[Question]) -> list[Question]:
    """The control: every question about a picture gets a different picture of the same benchmark; text-only questions stay.

    The different pictures (by content) stand in a circle, in the order of their SHA-256, and each is replaced by its neighbour: a
    permutation without a fixed point that depends on the pictures alone, not on the order of the rows. Questions about one
    picture get one other picture together. Raises DataError when all pictures are the same.
    """
    circle = sorted({q.image for q in questions if q.image is not None}, key=lambda image: hashlib.sha256(image).digest())
    if len(circle) == 1:
        raise DataError(
            f"{questions[0].where}: shuffle_images needs at least two different pictures in the file and found one: add rows or switch the control off"
        )
    following = dict(zip(circle, circle[1:] + circle[:1], strict=True))
    return [q if q.image is None else replace(q, image=following[q.image]) for q in questions]


def _rows(path: Path) -> list[tuple[str, dict[str, str]]]:
    limit = csv.field_size_limit(LARGEST_CELL)
    try:
        with path.open(encoding="utf-8-sig", newline="") as f:
            delimiter = _delimiter(f.readline())
            f.seek(0)
            return list(_cells(path, csv.reader(f, delimiter=delimiter)))
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a tab-separated text file in UTF-8 ({error}): save it as VLMEvalKit does, with a header and tabs") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}): check the path of the benchmark in the recipe") from error
    finally:
        csv.field_size_limit(limit)


def _delimiter(header: str) -> str:
    """A tab, unless it is a comma or a semicolon that cuts the header into the columns that are needed."""
    return next((d for d in "\t,;" if {*REQUIRED} <= {*next(csv.reader([header], delimiter=d), [])}), "\t")


def _cells(path: Path, lines: Iterator[list[str]]) -> Iterator[tuple[str, dict[str, str]]]:
    header = next(lines, None)
    if header is None:
        raise DataError(f"{path}: the file is empty; needed: a header with {', '.join(REQUIRED)}, and a row for every question")
    missing = [c for c in REQUIRED if c not in header]
    if missing:
        raise DataError(f"{path}: no column {missing[0]!r}; needed: {', '.join(REQUIRED)}; found: {', '.join(header) or 'nothing'}")
    for number, line in enumerate((line for line in lines if line), 1):
        where = f"{path}: row {number}"
        if len(line) != len(header):
            raise DataError(f"{where}: {len(line)} cells under {len(header)} columns: quote cells that contain tabs, quotes or line breaks")
        yield where, dict(zip(header, line, strict=True))


def _unique(where: list[str], indices: list[str]) -> None:
    seen: dict[int, str] = {}
    for row, text in zip(where, indices, strict=True):
        try:
            index = int(text)
        except ValueError:
            raise DataError(f"{row}: index is {text!r}: it must be an integer that no other row has") from None
        if index in seen:
            raise DataError(f"{row}: index {index} is already that of {seen[index].rpartition(': ')[2]}: give every row an index of its own")
        seen[index] = row


def _picture(where: str, text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except ValueError as error:
        raise DataError(f"{where}: the image is not base64 ({error}): encode the picture's file with base64, without a data: prefix") from error


def _question(where: str, cells: dict[str, str], pictures: dict[int, bytes]) -> Question:
    for column in ("question", "answer"):
        if not cells[column].strip():
            raise DataError(f"{where}: the {column} is empty: fill it in or remove the row")
    own, reference = int(cells["index"]), cells["image"].strip()
    image = pictures.get(own)
    if image is None and reference:
        if not reference.isdecimal() or int(reference) not in pictures:
            raise DataError(f"{where}: the image {reference!r} is neither base64 nor the index of a row that holds a picture")
        image = pictures[int(reference)]
    language = cells.get("language", "").strip() or language_of(f"{cells['question']} {cells['answer']}")
    kind = cells.get("category", "").strip() or "general"
    options = {letter: cells[letter] for letter in ascii_uppercase if cells.get(letter, "").strip()}
    return Question(where, own, image, cells["question"], cells["answer"], kind, language, cells.get("hint", "").strip(), options)
