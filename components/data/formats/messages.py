"""JSON or JSONL of ShareGPT's `conversations` or OpenAI's `messages`, of questions and answers, or of captions.

Pictures by path, or as `data:` addresses.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from components.data.formats import fields, json_rows
from components.data.formats.reader import Draft, Picture
from components.data.formats.turns import path
from components.recipe.data import Columns


class Messages:
    """Pictures are paths in the source's folder, in a field of the row or among the parts of a message."""

    suffixes = json_rows.SUFFIXES

    def __init__(self, columns: Columns):
        self.columns = columns

    def rows(self, file: Path) -> Iterator[tuple[int, Any]]:
        return json_rows.read(file)

    def draft(self, row: Any) -> Draft:
        return fields.draft(row, self.columns, self.picture)

    def picture(self, value: Any, where: str) -> Picture:
        """What the field `where` of a row says of a picture. Raises RowError."""
        return path(value, where)

    def row_id(self, row: Any) -> str | None:
        return fields.row_id(row, self.columns)
