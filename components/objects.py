"""What a recipe's sources on S3 hold: a file, a folder, or a pattern; known by keys, sizes and ETags, and fetched as they were listed."""

import hashlib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from components.errors import DataError
from components.recipe.data import S3 as SCHEME
from components.recipe.data import fixed_part
from components.storage import S3, Object


def bucket_of(uri: str) -> S3:
    """The whole bucket that an address is in."""
    return S3(urlsplit(uri).netloc, "", title="")


def key_of(uri: str) -> str:
    """The part of an address behind the bucket."""
    return uri.removeprefix(SCHEME).partition("/")[2].strip("/")


def fits(pattern: str, path: str) -> bool:
    """Whether a path is one that a pattern means: part by part, so that `*` never goes across a `/`."""
    parts, wanted = path.split("/"), pattern.split("/")
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))


def listed(uri: str) -> Iterator[Object]:
    """The objects that an address means: itself, or all below it as a folder, or those that fit its pattern. Without empty marks of folders."""
    bucket, key, fixed = bucket_of(uri), key_of(uri), key_of(fixed_part(uri))
    if fixed != key:
        yield from (o for o in bucket.objects(f"{fixed}/" if fixed else "") if fits(key, o.key))
        return
    found = False
    for o in bucket.objects(f"{key}/" if key else ""):
        if not o.key.endswith("/"):
            found = True
            yield o
    if not found and key:
        yield from (o for o in bucket.objects(key) if o.key == key)


def fingerprint(uri: str) -> dict[str, Any]:
    """Number, bytes, and SHA-256 of the list of the objects that an address means: other content, another digest. Raises DataError when there are none."""
    digest, number, total = hashlib.sha256(), 0, 0
    for o in listed(uri):
        digest.update(f"{o.key}\0{o.size}\0{o.etag}\n".encode())
        number, total = number + 1, total + o.size
    if not number:
        raise DataError(f"{uri}: no such object, and nothing below it: correct the address of this source in the recipe")
    return {"number": number, "bytes": total, "digest": digest.hexdigest()}


def fetch(uri: str, o: Object, to: Path) -> None:
    """Writes an object of the bucket of `uri` into a file. Raises SetupError when it is no longer what was listed."""
    bucket_of(uri).download(o.key, o.etag, to)
