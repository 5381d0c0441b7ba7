"""What every curation filter is: facts about each row, shard by shard, then verdicts over all rows at once.

A filter says what it finds; the curate step acts. The two halves keep memory bounded: pictures are in memory for a few rows at a time.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Generic, TypeVar

import pyarrow as pa

from components.curation.row import Row
from components.data.canonical import MESSAGE
from components.recipe.base import Section
from components.step import Step

C = TypeVar("C", bound=Section)

KEEP, TAG, FIX, DROP, QUARANTINE = "keep", "tag", "fix", "drop", "quarantine"
"""A tagged row stays, and carries the verdict. A fixed one stays with other messages, and carries those that it had."""
VERDICTS = pa.schema([("action", pa.string()), ("score", pa.float64()), ("reason", pa.string()), ("detail", pa.string()), ("messages", pa.list_(MESSAGE))])
"""One row per judged row; `reason` is a code and empty for rows that are just kept, `detail` a sentence for quarantine, `messages` what a fixed row
says from now on, else null."""

UNJUDGED = "unjudged"
"""Reason of a row on which a judge gave no answer that could be used, after all attempts: kept or dropped as the recipe says."""


class Filter(ABC, Generic[C]):
    """One filter with its section of the recipe: a RowFilter or a ModelFilter. `version` changes whenever equal rows could be judged otherwise."""

    kind: ClassVar[str]
    version: str

    def __init__(self, config: C, step: Step):
        self.config, self.step = config, step

    def looks_at(self, source: str) -> bool:
        """Whether rows of this source are judged; the others pass without a verdict."""
        return True

    @abstractmethod
    def judge(self, rows: pa.Table) -> pa.Table:
        """VERDICTS for all rows at once: columns `id`, `source`, `language` and `facts`, in the order of the sources."""

    def report(self) -> dict[str, Any] | None:
        """More about the last `judge`, for the data card."""
        return None

    def thresholds(self) -> dict[str, float] | None:
        """Where the last `judge` cut, by `source/language`; None for filters that do not cut."""
        return None

    def record(self) -> dict[str, Any]:
        """What counts.json says besides, such as which model was asked."""
        return {}


class RowFilter(Filter[C]):
    """Looks at one row at a time. All such filters share one pass over all rows, whichever of them the filters before would have taken out."""

    fact_type: ClassVar[pa.DataType]
    sees_pictures: ClassVar[bool] = True
    """False for a filter that looks at nothing but text."""

    def read(self, row: Row) -> None:
        """Optional: what can be found in the text of a row before its pictures are decoded, for the row to remember."""

    @abstractmethod
    def fact(self, row: Row) -> Any:
        """One small value of `fact_type`. Depends on this row and the filter's section alone."""


class ModelFilter(Filter[C]):
    """Shows rows to a model, many at once, and only those that the filters before it kept."""

    columns: tuple[str, ...]
    """Columns of the canonical rows that `facts` needs."""

    @abstractmethod
    def facts(self, rows: pa.Table) -> pa.Array:
        """One value per row, from the columns `columns` of some rows of one source. Depends on each row alone."""


def verdicts(
    actions: Sequence[str],
    scores: Sequence[float | None],
    reasons: Sequence[str],
    details: Sequence[str] | None = None,
    messages: Sequence[list[dict[str, str]] | None] | None = None,
) -> pa.Table:
    """VERDICTS from its columns; without details and messages, nobody has any."""
    columns = [actions, scores, reasons, details or [""] * len(actions), messages or [None] * len(actions)]
    return pa.table([pa.array(c, type=f.type) for c, f in zip(columns, VERDICTS, strict=True)], schema=VERDICTS)
