"""A note beside the embedded MLflow store: "this file shows all that this log says". It spares a run with nothing to do MLflow's start (5 s).

The note names the store's file by inode, size and time of change, and the log by its last entry; anything else, and it does not count.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from components.registry.promotion_log import Entry
from components.tracking.store import sqlite_path


def fingerprint(tracking_uri: str, entries: Sequence[Entry]) -> list[Any] | None:
    """What the note must say to count; None when the store is no SQLite file, is not there, or is being written."""
    path = sqlite_path(tracking_uri)
    if path is None or not path.is_file() or not entries or any(path.with_name(path.name + end).exists() for end in ("-wal", "-journal")):
        return None
    stat = path.stat()
    return [stat.st_ino, stat.st_size, stat.st_mtime_ns, len(entries), entries[-1].nonce]


def recall(tracking_uri: str, model: str, entries: Sequence[Entry]) -> dict[str, int]:
    """Package digest -> version, of a projection that was found right and has not changed since; else empty."""
    now = fingerprint(tracking_uri, entries)
    if now is None:
        return {}
    try:
        note = json.loads(_path(tracking_uri, model).read_text(encoding="utf-8"))
        return note["versions"] if note["fingerprint"] == now else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def remember(tracking_uri: str, model: str, seen: list[Any] | None, versions: Mapping[str, int]) -> None:
    """Leaves the note. `seen`: the fingerprint from before the projection was looked at."""
    if seen is None:
        return
    path = _path(tracking_uri, model)
    path.with_suffix(".new").write_text(json.dumps({"fingerprint": seen, "versions": dict(versions)}), encoding="utf-8")
    path.with_suffix(".new").replace(path)


def _path(tracking_uri: str, model: str) -> Path:
    path = sqlite_path(tracking_uri)
    assert path is not None
    return path.with_name(f"{model}.shown.json")
