"""Ids of a source's rows: stable, and none given twice. What was given lies on disk, so that any number of rows fits."""

import hashlib
import json
import sqlite3

from components.data.formats.reader import Draft, Embedded
from components.data.quarantine import RowError, short


class Identities:
    """The row's own id; else its name in its file; else a digest of its text and its pictures' paths, or bytes where it brought them along."""

    def __init__(self) -> None:
        self._given = sqlite3.connect("", isolation_level=None)  # below the temporary folder, gone with the connection; bound to 2 MiB of memory
        self._given.execute("pragma journal_mode = off")
        self._given.execute("create table given (id blob primary key, times integer not null) without rowid")

    def _times(self, row_id: str) -> int:
        """How often this id has been asked for, this time included."""
        key = hashlib.blake2b(row_id.encode(), digest_size=16).digest()
        asked = "insert into given values (?, 1) on conflict (id) do update set times = times + 1 returning times"
        return self._given.execute(asked, (key,)).fetchone()[0]

    def claim(self, draft: Draft) -> str:
        """The row's id. Raises RowError when an earlier row brought the same; rows without an id of their own are numbered instead."""
        if draft.id is not None:
            if self._times(draft.id) > 1:
                raise RowError("duplicate_id", f"id: {short(draft.id)}: an earlier row of this source has the same id")
            return draft.id
        name = draft.key or _digest(draft)
        row_id = name
        while (times := self._times(name)) > 1 and self._times(row_id := f"{name}-{times}") > 1:
            pass  # a row has brought just this id
        return row_id


def _digest(draft: Draft) -> str:
    pictures = [f"sha256:{hashlib.sha256(p.bytes).hexdigest()}" if isinstance(p, Embedded) else p for p in draft.images]
    content = json.dumps([pictures, draft.messages], ensure_ascii=False, separators=(",", ":")).encode()
    return hashlib.sha256(content).hexdigest()[:32]
