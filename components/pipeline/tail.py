"""Follows a unit's metrics.jsonl while it grows."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Report = dict[str, Any]
"""One line of a unit's metrics.jsonl: time, done, total, and numbers by name."""


class Tail:
    """Reads whole new lines of a file that grows."""

    def __init__(self, path: Path, on_report: Callable[[Report], None]) -> None:
        self.path, self.on_report, self.offset = path, on_report, 0

    def read(self) -> None:
        """Passes on what is new."""
        if not self.path.exists():
            return
        with self.path.open("rb") as f:
            f.seek(self.offset)
            data = f.read()
        whole = data[: data.rfind(b"\n") + 1]
        self.offset += len(whole)
        for line in whole.splitlines():
            self.on_report(json.loads(line))
