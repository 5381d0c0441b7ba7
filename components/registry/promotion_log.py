"""The promotion log: `promotions/<name>/<seq>.json`, create-only and without gaps, is the one truth about champions.

What MLflow shows (version tags, aliases) is a projection of it, see aliases.py.
"""

import hashlib
import json
import logging
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from components.errors import DataError, PermanentError, TransientError
from components.storage import Storage

logger = logging.getLogger(__name__)

SCHEMA = 1


@dataclass(frozen=True)
class Entry:
    """One verdict of the gate, or one rollback. `against` is the package digest of the champion of that moment."""

    seq: int
    id: str
    kind: Literal["promote", "rollback"]
    package: str
    model: str
    scores: dict[str, Any]
    policy: dict[str, Any]
    against: str | None
    promoted: bool
    reason: str
    nonce: str
    lineage: dict[str, str] = field(default_factory=dict)
    schema: int = SCHEMA


@dataclass(frozen=True)
class State:
    """What a log says: champions from the first to the present one, the package judged last, packages taken back by a rollback,
    every package that ever was champion, and the sequence number from which verdicts count (after the last rollback)."""

    champions: tuple[Entry, ...] = ()
    challenger: Entry | None = None
    barred: frozenset[str] = frozenset()
    ever: dict[str, Entry] = field(default_factory=dict)
    epoch: int = 0

    @property
    def champion(self) -> Entry | None:
        """The entry that holds the champion's package and scores."""
        return self.champions[-1] if self.champions else None

    @property
    def previous(self) -> Entry | None:
        """The champion before."""
        return self.champions[-2] if len(self.champions) > 1 else None


def state(entries: Sequence[Entry]) -> State:
    """Replays the log. A promotion puts a package on top; a rollback takes packages off until its own is on top (or puts it there)."""
    champions: list[Entry] = []
    challenger, epoch = None, 0
    barred: set[str] = set()
    ever: dict[str, Entry] = {}
    for e in entries:
        if e.promoted:
            ever[e.package] = e
        if e.kind == "promote":
            challenger = e
            if e.promoted:
                champions.append(e)
            continue
        epoch = e.seq + 1
        barred.discard(e.package)
        if any(c.package == e.package for c in champions):
            while champions[-1].package != e.package:
                barred.add(champions.pop().package)
        else:
            champions.append(e)
    return State(tuple(champions), challenger, frozenset(barred), ever, epoch)


def verdict_id(package: str, policy: str, champion: str | None) -> str:
    """Identity of a verdict: the same package under the same policy against the same champion is judged once."""
    return hashlib.sha256(json.dumps([package, policy, champion]).encode()).hexdigest()


def standing_verdict(entries: Sequence[Entry], package: str, policy: str) -> Entry | None:
    """The entry that already answers for this package under this policy against the champion of the moment; None when it must be judged.

    The champion's own entry answers for the champion. Verdicts from before the last rollback do not count: the world was another one.
    """
    now = state(entries)
    if now.champion and now.champion.package == package:
        return now.champion
    ident = verdict_id(package, policy, now.champion and now.champion.package)
    return next((e for e in entries[now.epoch :] if e.id == ident), None)


class PromotionLog:
    """The log of one registered model. Entries are immutable, so each is read once."""

    def __init__(self, store: Storage, name: str) -> None:
        self.store, self.name, self.prefix = store, name, f"promotions/{name}/"
        self._seen: list[Entry] = []

    def read(self) -> list[Entry]:
        """All entries in order. Raises DataError for a gap or a damaged entry, TransientError when the store does not answer."""
        keys = self.store.list(self.prefix)
        last = max((self._seq(k) for k in keys), default=-1)
        for seq in range(len(self._seen), last + 1):
            self._seen.append(self._load(seq))
        return list(self._seen)

    def state(self) -> State:
        """What the log says now."""
        return state(self.read())

    def append(self, make: Callable[[list[Entry], str], Entry | None]) -> Entry | None:
        """Appends `make(entries so far, nonce)`; when another process was faster, asks `make` again with its entry among them.

        None from `make` means that there is nothing to append. A write whose acknowledgement was lost is recognised by the nonce.
        """
        nonce = uuid.uuid4().hex
        while True:
            entries = self.read()
            entry = make(entries, nonce)
            if entry is None or self._put(entry):
                return entry
            logger.info("%s: entry %d was written by another process; judging again", self.prefix, entry.seq)

    def _put(self, entry: Entry) -> bool:
        data = json.dumps(asdict(entry), sort_keys=True, indent=1, ensure_ascii=False).encode()
        try:
            if self.store.put_new(self._key(entry.seq), data):
                return True
        except TransientError:
            if not self._ours(entry):
                raise
            return True
        return self._ours(entry)

    def _ours(self, entry: Entry) -> bool:
        try:
            return self._load(entry.seq).nonce == entry.nonce
        except DataError:
            return False

    def _key(self, seq: int) -> str:
        return f"{self.prefix}{seq:08d}.json"

    def _seq(self, key: str) -> int:
        stem = key.removeprefix(self.prefix).removesuffix(".json")
        if len(stem) != 8 or not stem.isdecimal():
            raise DataError(f"{key}: not an entry of a promotion log (expected {self.prefix}00000000.json and so on): remove it")
        return int(stem)

    def _load(self, seq: int) -> Entry:
        key = self._key(seq)
        try:
            entry = Entry(**json.loads(self.store.get(key)))
        except KeyError:
            raise DataError(f"{key}: missing, but later entries are there: the promotion log has a gap; restore this file from a backup") from None
        except (ValueError, TypeError) as error:
            raise DataError(f"{key}: damaged ({error}): restore this file from a backup") from error
        if entry.seq != seq or entry.schema != SCHEMA:
            raise DataError(f"{key}: holds entry {entry.seq} of schema {entry.schema}, expected {seq} of schema {SCHEMA}: restore this file from a backup")
        return entry


def rollback_entry(entries: Sequence[Entry], nonce: str, *, name: str, target: str | None, expect: str | None) -> Entry:
    """The entry that makes an earlier champion the champion again; `target` is its package digest, by default the champion before.

    Raises PermanentError when there is no such champion, TransientError when the champion is no longer `expect`.
    """
    seq, now = len(entries), state(entries)
    if now.champion is None:
        raise PermanentError(f"{name}: there is no champion yet, so nothing to roll back: promote a model first")
    if expect is not None and now.champion.package != expect:
        raise TransientError(f"{name}: another process changed the champion meanwhile: look at it and roll back again")
    if target is None and now.previous is None:
        raise PermanentError(f"{name}: the champion {now.champion.package[:12]} is the first one: there is no earlier champion to roll back to")
    package = target or now.previous.package  # pyright: ignore[reportOptionalMemberAccess]
    if package == now.champion.package:
        raise PermanentError(f"{name}: package {package[:12]} is the champion already: nothing to roll back")
    if package not in now.ever:
        raise PermanentError(f"{name}: package {package[:12]} was never champion; known: {', '.join(p[:12] for p in now.ever)}")
    back = now.ever[package]
    ident = hashlib.sha256(json.dumps(["rollback", package, now.champion.package, seq]).encode()).hexdigest()
    reason = f"rolled back from package {now.champion.package[:12]} to {package[:12]}"
    return Entry(seq, ident, "rollback", package, back.model, back.scores, back.policy, now.champion.package, True, reason, nonce, back.lineage)
