"""JSONL whose pictures are base64 text, with captions as in the POINTS demo (`{"image": base64, "caption": text}`) or with conversations."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from components.data.formats import fields, json_rows
from components.data.formats.reader import Draft, Picture
from components.data.formats.turns import text, unpacked
from components.recipe.data import Columns


class Base64:
    """Everything is inside the row; no other file is looked at."""

    suffixes = json_rows.SUFFIXES

    def __init__(self, columns: Columns):
        self.columns = columns

    def rows(self, file: Path) -> Iterator[tuple[int, Any]]:
        return json_rows.read(file)

    def draft(self, row: Any) -> Draft:
        return fields.draft(row, self.columns, _picture)

    def row_id(self, row: Any) -> str | None:
        return fields.row_id(row, self.columns)


def _picture(value: Any, where: str) -> Picture:
    return unpacked(text(value, where), where)
