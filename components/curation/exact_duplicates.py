"""Filter `exact_duplicates`: of rows with equal messages and equal pixels the first is kept, whatever their ids, sources and files."""

import pyarrow as pa

from components.curation.filter import DROP, KEEP, RowFilter, verdicts
from components.curation.row import Row
from components.recipe.curation import ExactDuplicates as Config

REASON = "exact_duplicate"


class ExactDuplicates(RowFilter[Config]):
    """Looks at all sources together. Pictures that cannot be decoded are compared by the bytes of their files."""

    kind = "exact_duplicates"
    version = "1"
    fact_type = pa.binary(32)

    def fact(self, row: Row) -> bytes:
        return row.digest

    def judge(self, rows: pa.Table) -> pa.Table:
        first: dict[bytes, str] = {}
        of = []
        for digest, source, row_id in zip(*(rows[name].to_pylist() for name in ("facts", "source", "id")), strict=True):
            of.append(first.get(digest, ""))
            first.setdefault(digest, f"{source}/{row_id}")
        details = [f"as {name}" if name else "" for name in of]
        return verdicts([DROP if name else KEEP for name in of], [None] * len(of), [REASON if name else "" for name in of], details)
