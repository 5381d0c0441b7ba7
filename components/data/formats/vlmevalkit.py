"""VLMEvalKit's tables as rows to learn from.

TSV of `index`, `image` (base64, or the index of the row that has it), `question`, `answer`, options `A`, `B`, ..., `hint`.
"""

import contextlib
import csv
import io
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from components.data.choice import choice
from components.data.formats.fields import marked
from components.data.formats.opened import opened
from components.data.formats.reader import MAX_ROW_BYTES, Draft, Picture
from components.data.formats.turns import path, text, unpacked
from components.data.quarantine import FileError, RowError, short

REQUIRED = ("question", "answer")
REFERENCE_CHARS = 64
"""An `image` cell of at most so many characters is the index of another row (VLMEvalKit, ImageBaseDataset.__init__)."""

LIST = re.compile(r"\[\s*(?:'[^']*'|\"[^\"]*\")(?:\s*,\s*(?:'[^']*'|\"[^\"]*\"))*\s*\]")
ITEM = re.compile(r"'([^']*)'|\"([^\"]*)\"")
"""A Python list of texts, as pandas writes it; never evaluated."""

Row = dict[str, str]


class VlmEvalKit:
    """Pictures in base64, or paths in `image_path`; a question with options is put as in an evaluation."""

    suffixes = (".tsv", ".tsv.gz")

    def rows(self, file: Path) -> Iterator[tuple[int, Any]]:
        referred = {r for _, row in _table(file) if not isinstance(row, RowError) for r in _references(row)}
        with contextlib.closing(_pictures_of(file, referred)) as pictures:
            for number, row in _table(file):
                yield number, row if isinstance(row, RowError) else _resolved(row, pictures)

    def draft(self, row: Any) -> Draft:
        for name in row:
            text(row[name], name)
        if not row["answer"].strip():
            raise RowError("no_answer", "answer: the cell is empty")
        options = {letter: row[letter] for letter in ascii_uppercase if row.get(letter, "").strip()}
        hint = row.get("hint", "").strip()
        asked = choice(row["question"], options, hint) if options else "\n".join(filter(None, [hint, row["question"]]))
        images = _images(row)
        messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": row["answer"]}]
        own = {name: row.get(name, "").strip() or None for name in ("index", "language")}
        return Draft(images, marked(messages, len(images)), None, own["index"], own["language"])

    def row_id(self, row: Any) -> str | None:
        return row.get("index", "").encode("utf-8", "replace").decode() or None if isinstance(row, dict) else None


def _images(row: Row) -> list[Picture]:
    if unknown := _references(row):
        raise RowError("image_missing", f"image: {short(unknown[0])} is neither base64 nor the index of a row that has a picture")
    if cell := row.get("image", "").strip():
        return [unpacked(item, "image") for item in _items(cell)]
    return [path(item, "image_path") for item in _items(row.get("image_path", "").strip())]


def _items(cell: str) -> list[str]:
    """The one text of a cell, or those of a list."""
    if not cell:
        return []
    return [a or b for a, b in ITEM.findall(cell)] if cell.startswith("[") and LIST.fullmatch(cell) else [cell]


def _references(row: Row) -> list[str]:
    """The rows whose pictures this one shows."""
    return [item.strip() for item in _items(row.get("image", "").strip()) if _is_reference(item)]


def _is_reference(item: str) -> bool:
    return len(item) <= REFERENCE_CHARS and not item.startswith("data:")


def _pictures_of(file: Path, referred: set[str]) -> sqlite3.Connection:
    """The pictures that other rows refer to, on disk."""
    pictures = sqlite3.connect("")  # a file of its own below the temporary folder, gone with the connection
    pictures.execute("create table pictures (row text primary key, cell text)")
    for _, row in _table(file) if referred else ():
        if not isinstance(row, RowError) and row.get("index", "").strip() in referred and not _references(row):
            pictures.execute("insert or ignore into pictures values (?, ?)", (row["index"].strip(), row.get("image", "")))
    return pictures


def _resolved(row: Row, pictures: sqlite3.Connection) -> Row:
    """The row with the pictures that it refers to, as far as there are such rows."""
    if not _references(row):
        return row
    cells: list[str] = []
    for item in _items(row["image"].strip()):
        found = pictures.execute("select cell from pictures where row = ?", (item.strip(),)).fetchone() if _is_reference(item) else None
        cells += (_items(found[0].strip()) if found else []) or [item]
    return {**row, "image": str(cells) if len(cells) > 1 else cells[0]}


def _table(file: Path) -> Iterator[tuple[int, Row | RowError]]:
    """(row number, cells by column) of every row; a RowError for one of another length than the header."""
    with opened(file) as f:
        lines = _Lines(io.TextIOWrapper(f, encoding="utf-8-sig", errors="surrogateescape", newline=""))
        first = next(lines, None)
        if first is None:
            raise FileError("the file is empty; expected a header and a row for each question")
        delimiter = next((d for d in "\t,;" if {*REQUIRED} <= {*_cells([first], d)}), "\t")
        header = _cells([first], delimiter)
        if missing := [c for c in REQUIRED if c not in header]:
            found = ", ".join(map(short, header[:12])) or "nothing"
            raise FileError(f"no column {missing[0]!r}; expected a header with {', '.join(REQUIRED)}; found: {found}")
        for number, line in enumerate(_parsed(lines, delimiter), 1):
            if len(line) == len(header):
                yield number, dict(zip(header, line, strict=True))
            else:
                detail = f"line {lines.first} to {lines.number}: {len(line)} cells under {len(header)} columns"
                yield number, RowError("broken_table", f"{detail}: quote cells that contain tabs, quotes or line breaks")


def _cells(lines: list[str], delimiter: str) -> list[str]:
    try:
        return next(csv.reader(lines, delimiter=delimiter), [])
    except csv.Error:
        return []


def _parsed(lines: "_Lines", delimiter: str) -> Iterator[list[str]]:
    """The cells of every row that is not blank."""
    table = csv.reader(lines, delimiter=delimiter)
    while True:
        lines.start()
        limit = csv.field_size_limit(MAX_ROW_BYTES)  # csv's own is smaller than a photograph, and the same for the whole program
        try:
            line = next(table, None)
        except csv.Error as error:
            raise FileError(f"line {lines.first}: not a table ({error}): save it as VLMEvalKit does, with a header and tabs") from error
        finally:
            csv.field_size_limit(limit)
        if line is None:
            return
        if line:
            yield line


class _Lines:
    """Lines of a text, counted. Raises FileError where one row, which may have several, is too long: a quote was not closed."""

    def __init__(self, f: io.TextIOWrapper):
        self.f = f
        self.first = self.number = self.length = 0

    def start(self) -> None:
        """A new row begins."""
        self.first, self.length = self.number + 1, 0

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self.f.readline(MAX_ROW_BYTES)
        self.number += 1
        self.length += len(line)
        if self.length >= MAX_ROW_BYTES:
            raise FileError(f"line {self.first}: a row of more than {MAX_ROW_BYTES} bytes: is a quote not closed?")
        if not line:
            raise StopIteration
        return line
