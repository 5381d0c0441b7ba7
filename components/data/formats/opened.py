"""Files of bytes, gzip or not: told by their first bytes, not by their name."""

import contextlib
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path

from components.data.quarantine import FileError

GZIP = b"\x1f\x8b"


@contextlib.contextmanager
def opened(file: Path) -> Iterator[gzip.GzipFile | io.BufferedReader]:
    """The file's bytes, unpacked. What is read inside raises FileError where a gzip stream is damaged or cut off."""
    try:
        with file.open("rb") as raw:
            packed = raw.read(len(GZIP)) == GZIP
            raw.seek(0)
            yield gzip.GzipFile(fileobj=raw) if packed else raw
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise FileError(f"the gzip file is damaged or cut off ({error}): fetch or pack it again") from error


def name_of(file: Path) -> str:
    """The lower-case name without `.gz`."""
    return file.name.lower().removesuffix(".gz")
