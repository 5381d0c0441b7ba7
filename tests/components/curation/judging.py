"""Shows rows to a filter without a step."""

from typing import Any

import pyarrow as pa

from components.curation.filter import VERDICTS, RowFilter
from components.curation.row import Row
from tests.components.curation.corpora import table


def judge(judging: RowFilter[Any], rows: list[dict]) -> list[dict]:
    """The verdicts of a row filter, which looks at each row by itself."""
    facts = pa.array([judging.fact(Row(r)) if judging.looks_at(r["source"]) else None for r in rows], type=judging.fact_type)
    verdicts = judging.judge(table(rows).select(["id", "source", "language"]).append_column("facts", facts))
    assert verdicts.schema == VERDICTS
    return verdicts.to_pylist()
