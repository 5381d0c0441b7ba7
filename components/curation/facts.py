"""What the row filters find in one shard: the one pass over all rows, in which each picture is decoded once."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from components.curation.filter import RowFilter
from components.curation.row import Row
from components.data.canonical import read_batches

ROWS = 64
"""Rows whose pictures are copied out of a shard at once."""


def rows_of(table: pa.Table) -> Iterator[Row]:
    """The rows of a table with the columns `Row.COLUMNS`, a few at a time in memory."""
    for batch in table.to_batches(max_chunksize=ROWS):
        yield from map(Row, batch.to_pylist())


def row_facts(file: Path, source: str, filters: Sequence[RowFilter[Any]], content: bytes | None = None) -> pa.Table:
    """What each filter finds in each row of a shard of `source`: columns `0`, `1`, ..., nulls for filters that do not look at the source.

    `content`: the bytes of the shard, for a machine that cannot see the file. Raises DataError when the shard is damaged.
    """
    looking = {str(number): judging for number, judging in enumerate(filters) if judging.looks_at(source)}
    found: dict[str, list[Any]] = {name: [] for name in looking}
    num_rows = 0
    for table in read_batches(file, list(Row.COLUMNS) if looking else ["id"], content):
        num_rows += table.num_rows
        for row in rows_of(table) if looking else ():
            for name, judging in looking.items():
                found[name].append(judging.fact(row))
    schema = pa.schema([(str(number), judging.fact_type) for number, judging in enumerate(filters)])
    return pa.table([pa.array(found.get(field.name, [None] * num_rows), type=field.type) for field in schema], schema=schema)
