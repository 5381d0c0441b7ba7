"""What a running step says about itself while it runs: numbers over time and how far it is.

Inside a unit (`STOCKPOT_UNIT`) every report is a line of `metrics.jsonl` there, for the launcher to show and to log;
under a bare `dvc repro` or `python -m components.steps` it is a progress bar on the terminal.
"""

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def report(done: int, total: int, **numbers: float) -> None:
    """One line: `done` of `total` units of work, and any numbers (loss, samples_per_second, ...) at that point."""
    unit = os.environ.get("STOCKPOT_UNIT")
    if not unit:
        return
    line = json.dumps({"time": time.time(), "done": done, "total": total, **numbers}, separators=(",", ":"))
    with Path(unit, "metrics.jsonl").open("a", encoding="utf-8") as f:
        f.write(line + "\n")


def track(items: Iterable[T], what: str, total: int) -> Iterator[T]:
    """Iterates with a bar on the terminal, and a report at most once a second."""
    last = time.monotonic()
    for i, item in enumerate(tqdm(items, desc=what, total=total, disable=None if sys.stderr.isatty() else True, leave=False), 1):
        yield item
        now = time.monotonic()
        if now - last > 1 or i == total:
            last = now
            report(i, total)
