"""Which kept rows of each source make up the mixture: whole counts by the recipe's shares, then rows by a digest of their names.

What is taken of a source depends on its rows' names and the seed alone, never on their order. A larger count takes the same rows and more.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa

from components.curation.filter import DROP, KEEP, Filter, verdicts
from components.recipe.mixture import Capped, Fixed, Mixture, Proportional, Sqrt, Temperature

REASON = "not_in_mixture"


class Mixing(Filter[Any]):
    """The last word on the rows of the mixed sources: a row's score is how often it is taken."""

    kind = "mixture"
    version = "1"

    def looks_at(self, source: str) -> bool:
        return source in mixed(self.config, [source])

    def judge(self, rows: pa.Table) -> pa.Table:
        sources = np.array(rows["source"].to_pylist(), dtype=object)
        places = {s: np.flatnonzero(sources == s) for s in self.step.param("sources") if self.looks_at(s)}
        self._counts = {s: len(p) for s, p in places.items()}
        self._wanted = wanted(self.config, self._counts)
        taken = np.zeros(rows.num_rows, dtype=np.int64)
        for source, place in places.items():
            taken[place] = copies(source, rows["id"].take(pa.array(place)).to_pylist(), self._wanted[source], self.step.seed)
        numbers = taken.tolist()
        return verdicts([KEEP if n else DROP for n in numbers], numbers, ["" if n else REASON for n in numbers])

    def report(self) -> dict[str, Any]:
        """`{kind, sources: {name: {kept, taken}}}`: rows that the filters kept, and rows of the mixture, repeated ones as often as they come."""
        return {"kind": self.config.kind, "sources": {s: {"kept": n, "taken": self._wanted[s]} for s, n in self._counts.items()}}


def changes_nothing(config: Mixture) -> bool:
    """Whether every kept row is taken once, whatever the rows are."""
    return isinstance(config, Proportional) and config.rows is None and not config.repeats


def mixed(config: Mixture, sources: Sequence[str]) -> list[str]:
    """Which of the sources are mixed; the others stay whole."""
    named = config.shares if isinstance(config, Fixed) else config.sources
    return [s for s in sources if named is None or s in named]


def wanted(config: Mixture, counts: Mapping[str, int]) -> dict[str, int]:
    """Rows to take of each mixed source, from how many there are: `rows` in all, or fewer where there are not so many.

    No source gives more than its rows times its `repeats`. Whole numbers by the largest remainders (Hamilton); ties by name.
    """
    most = {s: n * config.repeats.get(s, 1) for s, n in counts.items() if n}
    if isinstance(config, Capped):
        most = {s: min(n, config.cap) for s, n in most.items()}
    share, taken = _shares(config, most), dict.fromkeys(counts, 0)
    left = min(config.rows, sum(most.values())) if config.rows else min((math.floor(most[s] * sum(share.values()) / w) for s, w in share.items()), default=0)
    while short := [s for s, w in share.items() if left * w >= most[s] * sum(share.values())]:
        whole = {s: most[s] for s in short}  # they give all they have; the others share the rest
        taken |= whole
        left -= sum(whole.values())
        share = {s: w for s, w in share.items() if s not in whole}
    return taken | _apportion(left, share)


def _shares(config: Mixture, counts: Mapping[str, int]) -> dict[str, Fraction]:
    """The part of each source in the mixture, up to a common factor."""
    match config:
        case Fixed():
            return {s: Fraction(config.shares[s]) for s in counts}
        case Temperature():
            return {s: Fraction(n ** (1 / config.temperature)) for s, n in counts.items()}
        case Sqrt():
            return {s: Fraction(math.sqrt(n)) for s, n in counts.items()}
        case Proportional() | Capped():
            return {s: Fraction(n) for s, n in counts.items()}


def _apportion(total: int, share: Mapping[str, Fraction]) -> dict[str, int]:
    exact = {s: total * w / sum(share.values()) for s, w in share.items()}
    whole = {s: math.floor(x) for s, x in exact.items()}
    order = sorted(exact, key=lambda s: (whole[s] - exact[s], s))
    for s in order[: total - sum(whole.values())]:
        whole[s] += 1
    return whole


def copies(source: str, ids: Sequence[str], number: int, seed: int) -> list[int]:
    """How often each row of a source is taken, `number` times in all: every row equally often, those with the smallest digests once more."""
    if not ids:
        return []
    every, more = divmod(number, len(ids))
    order = sorted(range(len(ids)), key=lambda i: (_lot(source, ids[i], seed), i)) if more else []
    taken = [every] * len(ids)
    for i in order[:more]:
        taken[i] += 1
    return taken


def _lot(source: str, row_id: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}/mixture/{source}/{row_id}".encode()).digest()
