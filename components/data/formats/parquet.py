"""Parquet as Hugging Face writes it: pictures as struct of `bytes` and `path` or a list of these, text as captions, question and answer, or conversations.

Row by row in small batches; a `path` beside the bytes is a name for people and never opened.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from components.data.formats import fields
from components.data.formats.reader import MAX_PICTURE_BYTES, Draft, Embedded, Picture
from components.data.formats.turns import path
from components.data.quarantine import FileError, RowError, short
from components.recipe.data import Columns

BATCH_BYTES = 16 * 2**20
BATCH_ROWS = 256
"""Rows are decoded in batches of about so many bytes, and at most so many rows."""

PAGE_BYTES = 2**20
"""A column is read in pieces of this size, not whole."""


MAX_LIST = 100_000
"""Longest list in a footer, such as its row groups: a damaged one asks for a million, and a gigabyte."""


class Parquet:
    """The usual columns, or those that the recipe names."""

    suffixes = (".parquet",)

    def __init__(self, columns: Columns):
        self.columns = columns

    def rows(self, file: Path) -> Iterator[tuple[int, Any]]:
        number = 0
        try:
            options: dict[str, Any] = {
                "pre_buffer": False,
                "buffer_size": PAGE_BYTES,
                "page_checksum_verification": True,
                "thrift_container_size_limit": MAX_LIST,
            }
            with pq.ParquetFile(file, **options) as parquet:
                wanted, rows = self._wanted(parquet.schema_arrow), _batch_rows(parquet.metadata)
                for batch in parquet.iter_batches(rows, columns=wanted, use_threads=False):
                    for row in _rows(batch):
                        number += 1
                        yield number, row
        except (pa.ArrowException, OSError, ValueError, KeyError, OverflowError) as error:  # also its MemoryError: a damaged file asks for any amount
            if isinstance(error, FileError):
                raise
            raise FileError(f"after row {number}: not a whole Parquet file ({_first_line(error)}): fetch or write it again") from error

    def _wanted(self, schema: pa.Schema) -> list[str]:
        """The columns to read. Raises FileError when one that the recipe names is not there, or when there is no text."""
        named = [name for role in fields.USUAL if (name := getattr(self.columns, role))]
        if absent := [n for n in named if n not in schema.names]:
            raise FileError(f"no column {short(absent[0])}; found: {_list(schema)}: correct `columns` of this source in the recipe")
        if not any(n in schema.names for role in fields.TEXTS for n in fields.names(self.columns, role)):
            raise FileError(f"no column of conversations, questions or captions; found: {_list(schema)}: name it in `columns` of this source in the recipe")
        return [n for role in fields.USUAL for n in fields.names(self.columns, role) if n in schema.names]

    def draft(self, row: Any) -> Draft:
        name, value = fields.field(row, self.columns, "messages")
        if isinstance(value, str):
            try:
                row = {**row, name: json.loads(value)}
            except (ValueError, RecursionError) as error:
                raise RowError("broken_json", f"{name}: the text is not valid JSON: {error}") from error
        return fields.draft(row, self.columns, _picture)

    def row_id(self, row: Any) -> str | None:
        return fields.row_id(row, self.columns)


def _batch_rows(metadata: Any) -> int:
    """Rows of a batch of about BATCH_BYTES."""
    total = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    return max(1, min(BATCH_ROWS, BATCH_BYTES * max(1, metadata.num_rows) // max(1, total)))


def _rows(batch: pa.RecordBatch) -> Iterator[Any]:
    """The rows as mappings; a RowError for one whose text is not UTF-8."""
    try:
        yield from batch.to_pylist()
        return
    except UnicodeDecodeError:
        pass
    for i in range(batch.num_rows):
        try:
            yield batch.slice(i, 1).to_pylist()[0]
        except UnicodeDecodeError as error:
            yield RowError("bad_text", f"a text is not UTF-8: {error}")


def _picture(value: Any, where: str) -> Picture:
    if isinstance(value, dict) and {"bytes", "path"} & set(value):
        name = value.get("path")
        value, name = value.get("bytes"), name if isinstance(name, str) else ""
        if value is None:
            raise RowError("image_missing", f"{where}: no bytes, only the path {short(name)}, which is not looked at: write the pictures into the Parquet")
    else:
        name = ""
    if isinstance(value, bytes):
        if len(value) > MAX_PICTURE_BYTES:
            raise RowError("image_too_large", f"{where}: {len(value)} bytes are more than {MAX_PICTURE_BYTES}")
        return Embedded(value, name)
    return path(value, where)


def _list(schema: pa.Schema) -> str:
    return ", ".join(map(short, schema.names[: fields.NAMED])) or "nothing"


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0].rstrip(".")
