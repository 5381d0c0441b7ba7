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
    for batch in batches_of(table):
        yield from batch


def batches_of(table: pa.Table) -> Iterator[list[Row]]:
    """As `rows_of`, ROWS at a time."""
    for batch in table.to_batches(max_chunksize=ROWS):
        yield [Row(values) for values in batch.to_pylist()]


def row_facts(file: Path, source: str, filters: Sequence[RowFilter[Any]], content: bytes | None = None, groups: range | None = None) -> pa.Table:
    """What each filter finds in each row of a shard of `source`, or of some of its row groups: columns `0`, `1`, ..., nulls for filters that do not look
    at the source.

    Texts of some rows come before their pictures: decoding one empties the processor's caches of everything else.
    `content`: the bytes of the shard, for a machine that cannot see the file. Raises DataError when the shard is damaged.
    """
    looking = {str(number): judging for number, judging in enumerate(filters) if judging.looks_at(source)}
    seeing = {name: judging for name, judging in looking.items() if judging.sees_pictures}
    found: dict[str, list[Any]] = {name: [] for name in looking}
    num_rows = 0
    for table in read_batches(file, list(Row.COLUMNS) if looking else ["id"], content, groups):
        num_rows += table.num_rows
        for batch in batches_of(table) if looking else ():
            for name, judging in looking.items():
                if judging.sees_pictures:
                    for row in batch:
                        judging.read(row)
                else:
                    found[name] += [judging.fact(row) for row in batch]
            while batch:
                row = batch.pop(0)  # and its picture goes with it
                for name, judging in seeing.items():
                    found[name].append(judging.fact(row))
    schema = pa.schema([(str(number), judging.fact_type) for number, judging in enumerate(filters)])
    return pa.table([pa.array(found.get(field.name, [None] * num_rows), type=field.type) for field in schema], schema=schema)
