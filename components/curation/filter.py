"""What every curation filter is: facts about each row, shard by shard, then verdicts over all rows at once.

A filter tags; the curate step drops. The two halves keep memory bounded: pictures are in memory for one shard at a time.
"""

from abc import ABC, abstractmethod
from typing import ClassVar, Generic, TypeVar

import pyarrow as pa

from components.recipe.base import Section
from components.step import Step

C = TypeVar("C", bound=Section)

KEEP, DROP, QUARANTINE = "keep", "drop", "quarantine"
VERDICTS = pa.schema([("action", pa.string()), ("score", pa.float64()), ("reason", pa.string()), ("detail", pa.string())])
"""One row per judged row; `reason` is a code and empty for kept rows, `detail` a sentence for quarantine."""


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
