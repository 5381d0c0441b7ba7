"""LLaVA rows: JSON or JSONL of `id`, `image`, `conversations` (Liu et al. 2023, arXiv:2304.08485). Marks and pictures must match."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from components.data.formats import fields, json_rows
from components.data.formats.reader import Draft
from components.data.formats.turns import path
from components.recipe.data import Columns

COLUMNS = Columns(image="image", messages="conversations")


class Llava:
    """Pictures are paths in the source's folder."""

    suffixes = json_rows.SUFFIXES

    def rows(self, file: Path) -> Iterator[tuple[int, Any]]:
        return json_rows.read(file)

    def draft(self, row: Any) -> Draft:
        return fields.draft(row, COLUMNS, path, exact=True)

    def row_id(self, row: Any) -> str | None:
        return fields.row_id(row, COLUMNS)
