"""What every curation filter is: facts about each row, shard by shard, then verdicts over all rows at once.

A filter says what it finds; the curate step drops. The two halves keep memory bounded: pictures are in memory for one shard at a time.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Generic, TypeVar

import pyarrow as pa

from components.recipe.base import Section
from components.step import Step

C = TypeVar("C", bound=Section)

KEEP, TAG, DROP, QUARANTINE = "keep", "tag", "drop", "quarantine"
"""A tagged row stays, and carries the verdict."""
VERDICTS = pa.schema([("action", pa.string()), ("score", pa.float64()), ("reason", pa.string()), ("detail", pa.string())])
"""One row per judged row; `reason` is a code and empty for rows that are just kept, `detail` a sentence for quarantine."""

NO_VERDICT = "no_verdict"
"""Reason of a row that is kept because its judge gave no answer that could be read."""


class Filter(ABC, Generic[C]):
    """One filter with its section of the recipe. `version` changes whenever equal rows could be judged otherwise."""

    kind: ClassVar[str]
    version: ClassVar[str]
    columns: ClassVar[tuple[str, ...]]
    """Columns of the canonical rows that `facts` needs."""

    def __init__(self, config: C, step: Step):
        self.config, self.step = config, step

    def looks_at(self, source: str) -> bool:
        """Whether rows of this source are judged; the others pass without a verdict."""
        return True

    @abstractmethod
    def facts(self, rows: pa.Table) -> pa.Array:
        """One value per row, from the columns `columns` of some rows of one source. Depends on each row alone."""

    @abstractmethod
    def judge(self, rows: pa.Table) -> pa.Table:
        """VERDICTS for all rows at once: columns `id`, `source`, `language` and `facts`, in the order of the sources."""

    def thresholds(self) -> dict[str, float] | None:
        """Where the last `judge` cut, by `source/language`; None for filters that do not cut."""
        return None


def verdicts(actions: Sequence[str], scores: Sequence[float | None], reasons: Sequence[str]) -> pa.Table:
    """VERDICTS from its columns, without details."""
    columns = [actions, scores, reasons, [""] * len(actions)]
    return pa.table([pa.array(c, type=f.type) for c, f in zip(columns, VERDICTS, strict=True)], schema=VERDICTS)
