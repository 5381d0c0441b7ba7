"""Filters for tests of the engine: a slow one, and one that kills its worker."""

import os
import signal
import time
from pathlib import Path

import pyarrow as pa

from components.curation.filter import KEEP, RowFilter, verdicts
from components.curation.row import Row


class Slow(RowFilter):
    """Takes its time, and writes down which rows it has looked at."""

    kind = "slow"
    version = "1"
    fact_type = pa.string()

    def fact(self, row: Row) -> str:
        time.sleep(0.02)
        with Path("looked.txt").open("a", encoding="utf-8") as f:
            f.write(f"{row.id}\n")
        return row.id

    def judge(self, rows: pa.Table) -> pa.Table:
        return verdicts([KEEP] * rows.num_rows, [None] * rows.num_rows, rows["facts"].to_pylist())


class Deadly(Slow):
    """Kills the process that it is in, at one row."""

    def fact(self, row: Row) -> str:
        if row.id == "a5":
            os.kill(os.getpid(), signal.SIGKILL)
        return row.id
