"""Answers that were paid for, on disk: a step that is tried again asks an endpoint only what it has not answered yet. Never an output."""

import sqlite3
import threading
from pathlib import Path

from components.errors import SetupError

WAIT_SECONDS = 60.0
"""Several steps may write at once; each waits this long for its turn."""


class Answers:
    """Text by key, in one SQLite file; every answer is safe as soon as `put` returns. May be used by several threads and processes."""

    def __init__(self, path: Path):
        """Raises SetupError when the file cannot be used."""
        self._path, self._lock = path, threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, timeout=WAIT_SECONDS, check_same_thread=False, isolation_level=None)
        self._do("create table if not exists answers (key text primary key, answer text) without rowid", ())

    def get(self, key: str) -> str | None:
        """The answer, None when there is none yet."""
        rows = self._do("select answer from answers where key = ?", (key,))
        return rows[0][0] if rows else None

    def put(self, key: str, answer: str) -> None:
        """Keeps an answer; the first one stays."""
        self._do("insert or ignore into answers values (?, ?)", (key, answer))

    def _do(self, statement: str, values: tuple[str, ...]) -> list[tuple[str]]:
        try:
            with self._lock:
                return self._db.execute(statement, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise SetupError(f"{self._path}: {error}: free some disk space, or remove the file: its answers are then asked for again") from error
