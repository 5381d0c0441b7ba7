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
        seen: set[bytes] = set()
        first = []
        for digest in rows["facts"].to_pylist():
            first.append(digest not in seen)
            seen.add(digest)
        return verdicts([KEEP if f else DROP for f in first], [None] * len(first), ["" if f else REASON for f in first])
