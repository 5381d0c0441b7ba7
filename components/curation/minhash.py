"""Near-equal texts: Jaccard similarity of word shingles, and MinHash bands that bring similar texts together (Broder 1997)."""

import numpy as np
from xxhash import xxh3_64_intdigest

from components.curation.words import words

SHINGLE = 3
"""Words of a shingle; a shorter text is one shingle."""

BANDS, ROWS = 16, 4
"""Texts of similarity s meet in a band with probability 1 - (1 - s**ROWS)**BANDS: 0.9998 at 0.8, 0.64 at 0.5."""

_random = np.random.default_rng(20211)
_FACTORS, _SHIFTS = (_random.integers(2**64, size=BANDS * ROWS, dtype=np.uint64) for _ in range(2))
_FACTORS |= np.uint64(1)
_MIXERS = _random.integers(2**64, size=(BANDS, ROWS), dtype=np.uint64) | np.uint64(1)

Shingles = frozenset[int]


def shingles(text: str) -> Shingles:
    """All runs of SHINGLE words, as 64-bit digests. Word order counts; case, white space and punctuation do not."""
    found = [word.encode() for word in words(text)]
    return frozenset(xxh3_64_intdigest(b"\0".join(found[i : i + SHINGLE])) for i in range(max(1, len(found) - SHINGLE + 1)))


def jaccard(one: Shingles, other: Shingles) -> float:
    """Shared shingles over all shingles, 0 to 1."""
    return len(one & other) / len(one | other)


def bands(text: Shingles) -> bytes:
    """The smallest value of every hash function over the shingles, mixed to one number a band: BANDS times 8 bytes."""
    hashes = np.fromiter(text, dtype=np.uint64, count=len(text))[:, None]
    values = hashes * _FACTORS
    values += _SHIFTS
    signature = values.min(axis=0) >> np.uint64(16)
    return (signature.reshape(BANDS, ROWS) * _MIXERS).sum(axis=1).astype("<u8").tobytes()


def neighbourhoods(texts: np.ndarray) -> np.ndarray:
    """A number for every text: those that meet in a band have the same one, so similar ones almost surely do; others may.

    `texts`: their bands, uint64 (texts, BANDS). Returns int32 (texts,).
    """
    from scipy.sparse import coo_array  # not at the top: workers find facts without it
    from scipy.sparse.csgraph import connected_components

    edges = [np.zeros((2, 0), dtype=np.int64)]
    for band in texts.T:
        order = np.argsort(band, kind="stable")
        equal = np.flatnonzero(band[order[1:]] == band[order[:-1]])
        edges.append(np.stack([order[equal], order[equal + 1]]))
    one, other = np.concatenate(edges, axis=1)
    graph = coo_array((np.ones(len(one), dtype=np.int8), (one, other)), shape=(len(texts), len(texts)))
    return connected_components(graph, directed=False)[1]
