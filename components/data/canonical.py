"""The canonical sample: the one row format between ingest, curation and training, in Parquet shards of bounded size.

Equal rows in equal order give equal bytes: the writer pins everything that pyarrow would choose.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.errors import DataError

IMAGE_MARK = "<image>"
"""Stands in a message where a picture belongs; the n-th mark of a row is its n-th image."""

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string())])
VERDICT = pa.struct(
    [
        ("filter", pa.string()),
        ("version", pa.string()),
        ("action", pa.string()),
        ("score", pa.float64()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("before", pa.list_(MESSAGE)),
    ]
)
"""`reason` is a code; `detail` says what was found in this row, where there is more to say; `before`: the messages that a row had before the action
`fix`, else null."""

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("images", pa.list_(IMAGE)),
        ("messages", pa.list_(MESSAGE)),
        ("source", pa.string()),
        ("language", pa.string()),
        ("category", pa.string()),
        ("license", pa.string()),
        ("verdicts", pa.list_(VERDICT)),
    ]
)
"""One row per sample; `verdicts` in the order in which the filters gave them."""

QUARANTINE_SCHEMA = pa.schema(
    [("source", pa.string()), ("file", pa.string()), ("row", pa.int64()), ("id", pa.string()), ("reason", pa.string()), ("detail", pa.string())]
)
"""One row per row that was refused; `row` counts from 1, `reason` is a code, `detail` a sentence."""

SHARD_BYTES = 256 * 2**20
"""Largest sum of image bytes in a shard, unless one row alone is larger."""

ROW_GROUP = 256
"""Most rows in a Parquet row group."""

GROUP_BYTES = 32 * 2**20
"""Largest sum of image bytes in a row group of a shard, unless one row alone is larger: what a reader holds in memory."""

REPEATED = ("source", "language", "category", "license", "reason", "role", "filter", "version", "action")
"""Columns of few values, which are dictionary-encoded; `images.bytes` is stored as it is: pictures are compressed already."""


def _leaves(schema: pa.Schema) -> list[str]:
    """Parquet names of the leaf columns, such as `images.list.element.bytes`."""
    sink = pa.BufferOutputStream()
    pq.write_table(schema.empty_table(), sink)
    parquet = pq.ParquetFile(pa.BufferReader(sink.getvalue())).schema
    return [parquet.column(i).path for i in range(len(parquet))]


def _settings(schema: pa.Schema) -> dict[str, Any]:
    """Everything that pyarrow would choose about a file."""
    leaves = _leaves(schema)
    packed = [leaf for leaf in leaves if not leaf.endswith(".bytes")]
    return {
        "version": "2.6",
        "data_page_version": "1.0",
        "compression": {leaf: "zstd" if leaf in packed else "none" for leaf in leaves},
        "compression_level": dict.fromkeys(packed, 3),
        "use_dictionary": [leaf for leaf in leaves if leaf.rpartition(".")[2] in REPEATED],
        "write_statistics": [leaf for leaf in leaves if leaf in ("id", "row", *REPEATED)],  # never a copy of a long text
        "store_schema": True,
    }


def write_parquet(table: pa.Table, path: Path) -> None:
    """Writes one file with every setting pinned, so that equal rows give equal bytes whatever the chunks in memory."""
    plain = table.combine_chunks().replace_schema_metadata(None)
    pq.write_table(plain, path, row_group_size=ROW_GROUP, **_settings(table.schema))


class RowWriter:
    """Writes rows one after the other into one file, with the bytes that `write_parquet` gives. A context manager; holds one row group in memory."""

    def __init__(self, path: Path, schema: pa.Schema):
        self.schema = schema
        self._pending: list[dict[str, Any]] = []
        self._writer = pq.ParquetWriter(path, schema, **_settings(schema))

    def add(self, row: dict[str, Any]) -> None:
        """Appends a row."""
        self._pending.append(row)
        if len(self._pending) == ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        self._writer.write_table(pa.Table.from_pylist(self._pending, schema=self.schema), row_group_size=ROW_GROUP)
        self._pending = []

    def __enter__(self) -> "RowWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None and self._pending:
            self._flush()
        self._writer.close()


def _image_bytes(table: pa.Table) -> np.ndarray:
    """Sum of the image bytes of every row, int64 (rows,)."""
    sums = [np.zeros(0, dtype=np.int64)]
    for images in table["images"].chunks if "images" in table.column_names else []:
        lengths = pc.call_function("binary_length", [images.flatten().field("bytes")]).fill_null(0).to_numpy(zero_copy_only=False)
        ends = images.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).cumsum(dtype=np.int64)
        total = np.concatenate([[0], lengths.cumsum(dtype=np.int64)])[ends]
        sums.append(np.diff(total, prepend=0))
    return np.concatenate(sums) if len(sums) > 1 else np.zeros(table.num_rows, dtype=np.int64)


class ShardWriter:
    """Writes tables one after the other as `part-00000.parquet`, `part-00001.parquet`, ...; at least one file, maybe of no rows.

    Where a shard and a row group end depends on the rows alone (`shard_rows` rows or `shard_bytes` of pictures; ROW_GROUP rows or
    GROUP_BYTES), never on how they were handed in. A context manager; holds a row group and the table at hand in memory.
    """

    def __init__(self, folder: Path, shard_rows: int, schema: pa.Schema = SCHEMA, shard_bytes: int = SHARD_BYTES):
        self.folder, self.shard_rows, self.schema, self.shard_bytes = folder, shard_rows, schema.remove_metadata(), shard_bytes
        self.num_rows = self.num_shards = 0
        self._writer: pq.ParquetWriter | None = None
        self._rows = self._bytes = 0
        self._pending: list[pa.Table] = []
        self._pending_rows = self._pending_bytes = 0
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, table: pa.Table) -> None:
        """Appends the rows of a table of the writer's schema."""
        start = 0
        for row, num_bytes in enumerate(_image_bytes(table).tolist()):
            shard_ends = self._rows > 0 and (self._rows >= self.shard_rows or self._bytes + num_bytes > self.shard_bytes)
            group_ends = self._pending_rows > 0 and (self._pending_rows >= ROW_GROUP or self._pending_bytes + num_bytes > GROUP_BYTES)
            if shard_ends or group_ends:
                self._pending.append(table.slice(start, row - start))
                self._end_group()
                start = row
            if shard_ends:
                self._end_shard()
            self._rows += 1
            self._bytes += num_bytes
            self._pending_rows += 1
            self._pending_bytes += num_bytes
        if start < table.num_rows:
            self._pending.append(table.slice(start))
        self.num_rows += table.num_rows

    @property
    def _file(self) -> Path:
        return self.folder / f"part-{self.num_shards:05d}.parquet"

    def _end_group(self) -> None:
        self._writer = self._writer or pq.ParquetWriter(self._file, self.schema, **_settings(self.schema))
        group = pa.concat_tables([self.schema.empty_table(), *(t.replace_schema_metadata(None) for t in self._pending)])
        self._writer.write_table(group.combine_chunks(), row_group_size=ROW_GROUP)
        self._pending, self._pending_rows, self._pending_bytes = [], 0, 0

    def _end_shard(self) -> None:
        assert self._writer is not None
        self._writer.close()
        self._writer = None
        self.num_shards += 1
        self._rows = self._bytes = 0

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None and (self._rows or not self.num_shards):
            self._end_group()
            self._end_shard()
        elif self._writer is not None:
            self._writer.close()
            self._file.unlink()


def write_shards(table: pa.Table, folder: Path, shard_rows: int) -> None:
    """Writes `table` (its own schema) as shards of at most `shard_rows` rows; at least one file, even for no rows."""
    with ShardWriter(folder, shard_rows, schema=table.schema) as writer:
        writer.add(table)


def shards(folder: Path) -> list[Path]:
    """The shard files of a folder in order. Raises DataError when there are none."""
    files = sorted(folder.glob("part-*.parquet"))
    if not files:
        raise DataError(f"{folder}: no part-*.parquet here: run the step that writes this folder again")
    return files


def read_shard(file: Path, columns: list[str] | None = None) -> pa.Table:
    """One shard, all columns or the named ones. Raises DataError when the file is damaged or lacks a column."""
    with _opened(file, columns) as parquet:  # not pq.read_table: that imports pandas
        return parquet.read(columns, use_threads=False)


def read_batches(file: Path, columns: list[str] | None = None, content: bytes | None = None, groups: range | None = None) -> Iterator[pa.Table]:
    """As `read_shard`, a row group at a time; of all row groups, or of `groups`. `content`: the bytes of the file, where they are at hand."""
    with _opened(file, columns, content) as parquet:
        for group in range(parquet.num_row_groups) if groups is None else groups:
            yield parquet.read_row_group(group, columns, use_threads=False)


def row_groups(file: Path) -> list[int]:
    """How many rows each row group of a shard has. Raises DataError as `read_shard`."""
    with _opened(file, None) as parquet:
        return [parquet.metadata.row_group(i).num_rows for i in range(parquet.num_row_groups)]


@contextmanager
def _opened(file: Path, columns: list[str] | None, content: bytes | None = None) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(file if content is None else pa.BufferReader(content)) as parquet:
            missing = [c for c in columns or SCHEMA.names if c not in parquet.schema_arrow.names]
            if missing:
                raise DataError(f"{file}: columns {', '.join(missing)} are missing: this is no shard of canonical rows; run the step that writes it again")
            yield parquet
    except (pa.ArrowInvalid, pa.ArrowKeyError, OSError) as error:
        raise DataError(f"{file}: not a readable Parquet shard ({error}): run the step that writes it again") from error


def read_rows(file: Path, rows: Sequence[int], columns: list[str] | None = None) -> pa.Table:
    """Some rows of one shard (numbers from 0, rising); of its row groups only those that hold one are read. Raises DataError as `read_shard`."""
    with _opened(file, columns) as parquet:
        sizes = [parquet.metadata.row_group(i).num_rows for i in range(parquet.num_row_groups)]
        ends = np.cumsum(sizes, dtype=np.int64)
        groups = np.searchsorted(ends, rows, side="right")
        found = [parquet.schema_arrow.empty_table().select(columns or SCHEMA.names)]
        for group in np.unique(groups).tolist():
            here = np.asarray(rows)[groups == group] - (ends[group] - sizes[group])
            found.append(parquet.read_row_group(group, columns or SCHEMA.names, use_threads=False).take(pa.array(here)))
        return pa.concat_tables(found)


def read_shards(folder: Path, columns: list[str] | None = None) -> pa.Table:
    """All rows of a folder of canonical shards, in order; all columns or the named ones."""
    return pa.concat_tables([read_shard(f, columns) for f in shards(folder)])
