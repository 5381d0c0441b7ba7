"""Filter `near_duplicates`: of rows that look alike and say nearly the same the first is kept, over all sources.

Both must hold: captions repeat in small corpora, and one picture may stand in many rows. Pictures are compared by the correlation of
thumbnails of THUMBNAIL x THUMBNAIL pixels. On drawn pictures that tells a re-encoded, resized or brightened copy from another picture of the same
things far better than the bits of a perceptual hash do, and a k-d tree finds the neighbours exactly.
"""

import math
from collections import defaultdict
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.curation.filter import DROP, KEEP, RowFilter, verdicts
from components.curation.minhash import BANDS, jaccard, neighbourhoods, shingles
from components.curation.row import THUMBNAIL, Row
from components.data.images import ImageError
from components.recipe.curation import NearDuplicates as Config

REASON = "near_duplicate"
FLAT = 4.0
"""Smallest standard deviation that counts, of 255: what a picture of one colour shows besides is noise."""


def point(pixels: bytes) -> np.ndarray:
    """Thumbnails as a point, float32 (pictures * THUMBNAIL**2 * 3,): the squared distance of two is twice what their correlation lacks to 1."""
    values = np.frombuffer(pixels, dtype=np.uint8).reshape(-1, THUMBNAIL**2 * 3).astype(np.float32)
    values -= values.mean(axis=1, keepdims=True)
    values /= np.maximum(values.std(axis=1, keepdims=True), FLAT)
    return values.ravel() / np.sqrt(values.size, dtype=np.float32)


class NearDuplicates(RowFilter[Config]):
    """Looks at all sources together. Rows without pictures, or with one that cannot be decoded, pass."""

    kind = "near_duplicates"
    version = "1"
    fact_type = pa.struct([("text", pa.string()), ("bands", pa.binary(8 * BANDS)), ("thumbnails", pa.binary())])

    def read(self, row: Row) -> None:
        _ = row.bands

    def fact(self, row: Row) -> dict[str, Any] | None:
        try:
            thumbnails = b"".join(picture.thumbnail for picture in row.pictures)
        except ImageError:
            return None
        return {"text": row.text, "bands": row.bands, "thumbnails": thumbnails} if thumbnails else None

    def judge(self, rows: pa.Table) -> pa.Table:
        column = rows["facts"].combine_chunks()
        seen = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
        facts = Facts(column.take(pa.array(seen)))
        members: dict[tuple[int, int], list[int]] = defaultdict(list)
        for i, group in enumerate(zip(neighbourhoods(facts.bands()).tolist(), facts.lengths(), strict=True)):
            members[group].append(i)
        found: dict[int, tuple[int, float]] = {}
        for group in members.values():
            if len(group) > 1:
                found |= {int(seen[i]): (int(seen[first]), score) for i, (first, score) in self._repeats(group, facts).items()}
        of = [found.get(i, (None, None)) for i in range(rows.num_rows)]
        details = ["" if first is None else f"like {rows['source'][first]}/{rows['id'][first]}" for first, _ in of]
        return verdicts([DROP if d else KEEP for d in details], [score for _, score in of], [REASON if d else "" for d in details], details)

    def _repeats(self, members: list[int], facts: "Facts") -> dict[int, tuple[int, float]]:
        """Rows (of rising number) that repeat an earlier kept one -> that row, and the correlation of their pictures."""
        from scipy.spatial import KDTree  # not at the top: workers find facts without it

        points = np.stack([point(facts.thumbnails(i)) for i in members])
        tree, radius = KDTree(points), math.sqrt(2 - self.config.picture_percent / 50)
        found: dict[int, tuple[int, float]] = {}
        for i, row in enumerate(members):
            if row in found:
                continue
            for j in sorted(tree.query_ball_point(points[i], radius)):
                if j > i and members[j] not in found and self._similar(facts.text(row), facts.text(members[j])):
                    found[members[j]] = row, 1 - float(((points[i] - points[j]) ** 2).sum()) / 2
        return found

    def _similar(self, one: str, other: str) -> bool:
        return one == other or jaccard(_shingles(one), _shingles(other)) * 100 >= self.config.text_percent


_shingles = lru_cache(maxsize=4096)(shingles)


class Facts:
    """The facts of all rows that have some, by number, as they lie in memory."""

    def __init__(self, facts: pa.StructArray):
        self._facts = facts

    def text(self, i: int) -> str:
        return self._facts.field("text")[i].as_py()

    def thumbnails(self, i: int) -> bytes:
        return self._facts.field("thumbnails")[i].as_py()

    def lengths(self) -> list[int]:
        """Bytes of the thumbnails of each row."""
        return pc.call_function("binary_length", [self._facts.field("thumbnails")]).to_pylist()

    def bands(self) -> np.ndarray:
        """uint64 (rows, BANDS)"""
        digests = self._facts.field("bands")
        whole = np.frombuffer(digests.buffers()[1] or b"", dtype="<u8", count=BANDS * (digests.offset + len(digests)))
        return whole.reshape(-1, BANDS)[digests.offset :]
