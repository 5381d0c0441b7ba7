"""Filter `exact_duplicates`: of rows with equal messages and equal pixels the first is kept, whatever their ids, sources and files."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from components.curation.filter import DROP, KEEP, Filter, verdicts
from components.data.images import ImageError, decode, pixel_digest
from components.recipe.curation import ExactDuplicates as Config

REASON = "exact_duplicate"
MAX_PIXELS = 50_000_000
"""Pictures that are larger, or cannot be decoded, are compared by the bytes of their files."""


def content_digest(messages: Sequence[Mapping[str, str]], images: Sequence[Mapping[str, Any]]) -> bytes:
    """SHA-256 of the roles, the texts and the decoded pictures of a row, in their order."""
    digest = hashlib.sha256(json.dumps([[m["role"], m["content"]] for m in messages]).encode())
    for image in images:
        try:
            digest.update(b"pixels " + pixel_digest(decode(image["bytes"], MAX_PIXELS)).encode())
        except ImageError:
            digest.update(b"bytes " + hashlib.sha256(image["bytes"]).hexdigest().encode())
    return digest.digest()


class ExactDuplicates(Filter[Config]):
    """Looks at all sources together."""

    kind = "exact_duplicates"
    version = "1"
    columns = ("messages", "images")

    def facts(self, rows: pa.Table) -> pa.Array:
        digests = []
        for chunk in rows.to_batches(max_chunksize=64):
            messages, images = chunk.column("messages").to_pylist(), chunk.column("images").to_pylist()
            digests += [content_digest(*row) for row in zip(messages, images, strict=True)]
        return pa.array(digests, type=pa.binary(32))

    def judge(self, rows: pa.Table) -> pa.Table:
        seen: set[bytes] = set()
        first = []
        for digest in rows["facts"].to_pylist():
            first.append(digest not in seen)
            seen.add(digest)
        return verdicts([KEEP if f else DROP for f in first], [None] * len(first), ["" if f else REASON for f in first])
