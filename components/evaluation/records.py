"""`records.parquet`: every judged answer of every model, one row each."""

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from components.data.canonical import write_parquet
from components.evaluation.judging import Record

SCHEMA = pa.schema(
    [
        ("model", pa.string()),
        ("benchmark", pa.string()),
        ("index", pa.int64()),
        ("kind", pa.string()),
        ("language", pa.string()),
        ("question", pa.string()),
        ("answer", pa.string()),
        ("prediction", pa.string()),
        ("extracted", pa.string()),
        ("correct", pa.bool_()),
        ("failed", pa.bool_()),
    ]
)
"""`model` is `soup` or a candidate's name; `failed`: nothing could be read in the prediction."""


def write(path: Path, judged: Iterable[tuple[str, str, list[Record]]]) -> None:
    """Writes (model, benchmark, records) triples in their order; equal records give equal bytes."""
    rows = [(model, benchmark, *_cells(record)) for model, benchmark, records in judged for record in records]
    columns = list(zip(*rows, strict=True)) or [()] * len(SCHEMA)
    write_parquet(pa.table([pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)], schema=SCHEMA), path)


def _cells(r: Record) -> tuple[object, ...]:
    q = r.question
    return q.index, q.kind, q.language, q.question, q.answer, r.prediction, r.extracted, r.correct, r.failed
