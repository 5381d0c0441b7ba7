"""Near-equal texts: Jaccard similarity of word shingles, and MinHash bands that bring similar texts together (Broder 1997)."""

import hashlib
from collections.abc import Sequence

import numpy as np

from components.curation.words import words

SHINGLE = 3
"""Words of a shingle; a shorter text is one shingle."""

BANDS, ROWS = 16, 4
"""Texts of similarity s meet in a band with probability 1 - (1 - s**ROWS)**BANDS: 0.9998 at 0.8, 0.64 at 0.5."""

_random = np.random.default_rng(20211)
_FACTORS, _SHIFTS = (_random.integers(2**64, size=BANDS * ROWS, dtype=np.uint64) for _ in range(2))

Shingles = frozenset[tuple[str, ...]]


def shingles(text: str) -> Shingles:
    """All runs of SHINGLE words. Word order counts; case, white space and punctuation do not."""
    found = words(text)
    return frozenset(tuple(found[i : i + SHINGLE]) for i in range(max(1, len(found) - SHINGLE + 1)))


def jaccard(one: Shingles, other: Shingles) -> float:
    """Shared shingles over all shingles, 0 to 1."""
    return len(one & other) / len(one | other)


def neighbourhoods(texts: Sequence[Shingles]) -> list[int]:
    """A number for every text: texts that meet in a band have the same one, so similar ones almost surely do; others may."""
    parent = list(range(len(texts)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first: dict[bytes, int] = {}
    for i, text in enumerate(texts):
        for number, band in enumerate(_signature(text).reshape(BANDS, ROWS)):
            other = first.setdefault(bytes([number]) + band.tobytes(), i)
            parent[root(i)] = root(other)
    return [root(i) for i in range(len(texts))]


def _signature(text: Shingles) -> np.ndarray:
    """The smallest value of every hash function over the shingles, uint64 (BANDS * ROWS,)."""
    digests = [hashlib.blake2b("\0".join(s).encode(), digest_size=8).digest() for s in text]
    hashes = np.frombuffer(b"".join(digests), dtype="<u8")[:, None]
    return ((hashes * (_FACTORS | np.uint64(1)) + _SHIFTS) >> np.uint64(16)).min(axis=0)
