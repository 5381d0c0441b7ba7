"""What a unit that runs elsewhere says to its launcher: marked lines of its log, between the lines that are for people."""

import json
from typing import Any

MARK = "@stockpot "
END_BYTES = 1500
"""Longest sentence of an end line: Kubernetes keeps the last 2,048 bytes of the log of a container that failed."""


def report_line(report: dict[str, Any]) -> str:
    """How far the step is: one line of its metrics.jsonl."""
    return MARK + json.dumps({"report": report}, separators=(",", ":"))


def end_line(end: dict[str, Any]) -> str:
    """How the unit ended: {code, error, message}; the last line of its log."""
    short = end["message"].encode()[:END_BYTES].decode(errors="ignore")
    return MARK + json.dumps({"end": {**end, "message": short}}, separators=(",", ":"), ensure_ascii=False)


def heard(line: str) -> dict[str, Any] | None:
    """`{"report": ...}` or `{"end": ...}`; None for a line that is for people, or that was cut off."""
    if not line.startswith(MARK):
        return None
    try:
        return json.loads(line.removeprefix(MARK))
    except ValueError:
        return None


def end_of(text: str) -> dict[str, Any] | None:
    """The end that the last lines of a log tell of, if they do."""
    for line in reversed(text.splitlines()):
        if (said := heard(line)) and "end" in said:
            return said["end"]
    return None
