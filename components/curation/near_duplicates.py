"""Filter `near_duplicates`: of rows that look alike and say nearly the same the first is kept, over all sources.

Both must hold: captions repeat in small corpora, and one picture may stand in many rows. Pictures are compared by the correlation of
thumbnails of THUMBNAIL x THUMBNAIL pixels. On drawn pictures that tells a re-encoded, resized or brightened copy from another picture of the same
things far better than the bits of a perceptual hash do, and a k-d tree finds the neighbours exactly.
"""

import math
from collections import defaultdict
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.spatial import KDTree

from components.curation.filter import DROP, KEEP, RowFilter, verdicts
from components.curation.minhash import jaccard, neighbourhoods, shingles
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
    fact_type = pa.struct([("text", pa.string()), ("thumbnails", pa.binary())])

    def fact(self, row: Row) -> dict[str, Any]:
        try:
            thumbnails = b"".join(picture.thumbnail for picture in row.pictures)
        except ImageError:
            thumbnails = b""
        return {"text": row.text, "thumbnails": thumbnails or None}

    def judge(self, rows: pa.Table) -> pa.Table:
        facts = rows["facts"].to_pylist()
        seen = [i for i, fact in enumerate(facts) if fact["thumbnails"]]
        texts = list(dict.fromkeys(facts[i]["text"] for i in seen))
        self._shingles = dict(zip(texts, map(shingles, texts), strict=True))
        near = dict(zip(texts, neighbourhoods(list(self._shingles.values())), strict=True))
        groups: dict[tuple[int, int], list[int]] = defaultdict(list)
        for i in seen:
            groups[near[facts[i]["text"]], len(facts[i]["thumbnails"])].append(i)
        found: dict[int, tuple[int, float]] = {}
        for members in groups.values():
            found |= self._repeats(members, facts)
        sources, ids = rows["source"].to_pylist(), rows["id"].to_pylist()
        of = [found.get(i, (None, None)) for i in range(len(facts))]
        details = ["" if first is None else f"like {sources[first]}/{ids[first]}" for first, _ in of]
        return verdicts([DROP if d else KEEP for d in details], [score for _, score in of], [REASON if d else "" for d in details], details)

    def _repeats(self, members: list[int], facts: list[dict[str, Any]]) -> dict[int, tuple[int, float]]:
        """Rows (of rising number) that repeat an earlier kept one -> that row, and the correlation of their pictures."""
        points = np.stack([point(facts[i]["thumbnails"]) for i in members])
        tree, radius = KDTree(points), math.sqrt(2 - self.config.picture_percent / 50)
        found: dict[int, tuple[int, float]] = {}
        for i, row in enumerate(members):
            if row in found:
                continue
            for j in sorted(tree.query_ball_point(points[i], radius)):
                if j > i and members[j] not in found and self._similar(facts[row]["text"], facts[members[j]]["text"]):
                    found[members[j]] = row, 1 - float(((points[i] - points[j]) ** 2).sum()) / 2
        return found

    def _similar(self, one: str, other: str) -> bool:
        return one == other or jaccard(self._shingles[one], self._shingles[other]) * 100 >= self.config.text_percent
