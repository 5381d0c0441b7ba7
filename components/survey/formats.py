"""Which format a user's rows are in: told by the names of the files, and for JSON by the first row."""

from itertools import islice
from pathlib import Path
from typing import Any

from components.data.formats import json_rows
from components.data.formats.parquet import Parquet
from components.data.formats.table import FORMATS
from components.data.formats.vlmevalkit import VlmEvalKit
from components.data.formats.webdataset import WebDataset
from components.data.quarantine import FileError, RowError
from components.errors import DataError
from components.recipe.data import Columns, Format

BY_PATH = ("llava", "messages", "vlmevalkit")
"""Formats whose rows may name pictures in a folder."""

BY_NAME: dict[Format, tuple[str, ...]] = {
    "webdataset": WebDataset.suffixes,
    "parquet": Parquet.suffixes,
    "vlmevalkit": VlmEvalKit.suffixes,
    "llava": json_rows.SUFFIXES,
}
ENCODED_CHARS = 256
"""A path is shorter; a picture in base64 is longer, and has no dot."""

LOOKED = 20
"""Rows of JSON that are looked at."""


def format_of(path: Path) -> Format:
    """The format of a file, or of the files of a folder. Raises DataError for a folder with rows in several formats, or none."""
    if not path.is_dir():
        named: list[Format] = [form for form, ends in BY_NAME.items() if path.name.lower().endswith(ends)]
        return _json_format(path) if named in ([], ["llava"]) else named[0]
    found: dict[Format, Path] = {}
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        for form, ends in BY_NAME.items():
            if file.name.lower().endswith(ends):
                found.setdefault(form, file)
    if len(found) != 1:
        ends = ", ".join(e for ends in BY_NAME.values() for e in ends)
        what = f"rows in several formats, such as {' and '.join(p.name for p in found.values())}" if found else f"no file that ends in {ends}"
        raise DataError(f"{path}: {what}: name the file of the rows")
    form, file = found.popitem()
    return _json_format(file) if form == "llava" else form


def _json_format(file: Path) -> Format:
    """`llava`, unless the rows have something that only another format has."""
    try:
        rows: list[Any] = [row for _, row in islice(json_rows.read(file), LOOKED) if isinstance(row, dict)]
    except FileError:
        return "llava"
    strings = [v for row in rows for v in [row.get("image")] if isinstance(v, str)]
    if strings and all(len(v) >= ENCODED_CHARS and "." not in v for v in strings):
        return "base64"
    return "messages" if rows and not any(_is_draft("llava", row) for row in rows) and any(_is_draft("messages", row) for row in rows) else "llava"


def _is_draft(form: Format, row: Any) -> bool:
    try:
        FORMATS[form](Columns()).draft(row)
    except RowError:
        return False
    return True
