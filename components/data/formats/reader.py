"""What a format is: it gives the rows of a file, and makes a draft of each. Looking at the pictures, ids and quarantine are the same for all."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

MAX_PICTURE_BYTES = 64 * 2**20
"""Largest file of a picture."""

MAX_ROW_BYTES = 96 * 2**20
"""Longest row of a text file, bytes: room for a picture of MAX_PICTURE_BYTES in base64."""


@dataclass(frozen=True)
class Embedded:
    """A picture that came inside its row. `path` is a name for people: it is never opened."""

    bytes: bytes
    path: str = ""


Picture = str | Embedded
"""A path in the source's folder of pictures, or the picture itself."""


@dataclass(frozen=True)
class Draft:
    """A row whose text is in order; its pictures have not been looked at."""

    images: list[Picture]
    messages: list[dict[str, str]]
    id: str | None = None
    """The row's own id, once per source."""
    key: str | None = None
    """What tells it from others in its file, where it has no id; other files may use it again."""
    language: str | None = None
    license: str | None = None


class Reader(Protocol):
    """One format."""

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Ends of the names of its files, lower-case: these are taken from a folder."""
        ...

    def rows(self, file: Path) -> Iterator[tuple[int, Any]]:
        """(number, row) of every row, the number counted from 1 (in files of lines: the line); a RowError instead of a row that is broken.

        Never more than one row and a buffer is in memory. Raises FileError where the file cannot be read, or not further.
        """
        ...

    def draft(self, row: Any) -> Draft:
        """Checks the text of one row. Raises RowError."""
        ...

    def row_id(self, row: Any) -> str | None:
        """What names the row in quarantine; None when there is nothing."""
        ...
