"""WebDataset shards: a tar, or tar.gz, in which members of one name and different ends are a sample: `000.jpg`, `000.txt`, `000.json`.

Read as a stream; nothing is unpacked to disk, and no name in the tar is ever opened as a file.
"""

import gzip
import json
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.data.formats import fields
from components.data.formats.opened import opened
from components.data.formats.reader import MAX_PICTURE_BYTES, Draft, Embedded
from components.data.quarantine import FileError, RowError, short
from components.recipe.data import Columns

NAME = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)", re.DOTALL)
"""Key and end of a member's name: up to the first dot behind the last slash (webdataset.tariterators.base_plus_ext)."""

PICTURES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "ppm")
TEXTS = ("txt", "text", "caption")
JSON = "json"

MAX_TEXT_BYTES = 16 * 2**20
"""Largest member of text or JSON."""

MAX_SAMPLE_BYTES = 4 * MAX_PICTURE_BYTES
"""Bytes of all members of a sample together."""

MAX_HEADER_BYTES = 2**20
"""Largest extended header: a long name, or PAX records."""

BLOCK = 2**16
DEFLATE_RATIO = 1032
"""Most bytes that one byte of a gzip stream can become (zlib's technical details)."""

EXTENDED = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)


@dataclass
class Sample:
    """The members of one name."""

    key: str
    pictures: list[Embedded] = field(default_factory=list)
    texts: dict[str, bytes] = field(default_factory=dict)
    """end of the name -> content, of texts and JSON"""
    others: list[str] = field(default_factory=list)
    """ends that are not read"""
    num_bytes: int = 0
    problem: RowError | None = None
    """the first thing that was wrong with a member"""


class _Header(tarfile.TarInfo):
    """tarfile takes a damaged header for the end of the archive, and reads any extended header into memory. A class for each archive."""

    most = 0
    """bytes that the archive can hold at most: a member of more would be waited for at the end of the file"""
    ended = False
    """whether the last header was an end mark: tars may follow one another in a file"""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Header":
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.EOFHeaderError:  # pyright: ignore[reportAttributeAccessIssue]
            cls.ended = True
            raise
        except tarfile.EmptyHeaderError as error:  # pyright: ignore[reportAttributeAccessIssue]
            if cls.ended:
                raise
            raise FileError("the tar ends without its end mark: it is empty or was cut off: fetch it again") from error
        except tarfile.HeaderError as error:
            raise FileError(f"not a tar, or damaged from here on ({error}): fetch it again") from error
        cls.check_size(header.size, MAX_HEADER_BYTES if header.type in EXTENDED else cls.most)
        cls.ended = False
        return header

    @staticmethod
    def check_size(size: int, most: int) -> None:
        """Raises FileError for a member that cannot be of this size."""
        if not 0 <= size <= most:
            raise FileError(f"a header of the tar says {size} bytes: it is damaged or was cut off: fetch it again")


class WebDataset:
    """A caption, or the fields of a JSON object, and the pictures beside them in the order of the tar."""

    suffixes = (".tar", ".tar.gz", ".tgz")

    def __init__(self, columns: Columns):
        self.columns = columns

    def rows(self, file: Path) -> Iterator[tuple[int, Any]]:
        sample, number = None, 0
        for key, end, member, content in _members(file):
            if sample is None or sample.key != key:
                if sample is not None:
                    number += 1
                    yield number, sample
                sample = Sample(key)
            _add(sample, end, member, content)
        if sample is not None:
            yield number + 1, sample

    def draft(self, row: Any) -> Draft:
        sample: Sample = row
        if sample.problem is not None:
            raise sample.problem
        row = _fields(sample, self.columns)
        row = {k: v for k, v in row.items() if k not in fields.names(self.columns, "image")} | {"image": sample.pictures}
        own = fields.draft(row, self.columns.model_copy(update={"image": None}), lambda value, _: value)
        return Draft(own.images, own.messages, own.id, sample.key, own.language, own.license)

    def row_id(self, row: Any) -> str | None:
        return row.key if isinstance(row, Sample) else None


def _add(sample: Sample, end: str, member: tarfile.TarInfo, content: bytes | RowError | None) -> None:
    """Puts a member into its sample."""
    if isinstance(content, RowError):
        sample.problem = sample.problem or content
    elif content is None:
        sample.others = [*sample.others, end][: fields.NAMED]
    elif end in sample.texts:
        sample.problem = sample.problem or RowError("wrong_type", f"{short(sample.key)}: two members end in .{end}")
    elif sample.num_bytes + len(content) > MAX_SAMPLE_BYTES:
        sample.problem = sample.problem or RowError("image_too_large", f"{short(sample.key)}: its members are more than {MAX_SAMPLE_BYTES} bytes")
    else:
        sample.num_bytes += len(content)
        if end.rpartition(".")[2] in PICTURES:
            sample.pictures.append(Embedded(content, _clean(member.name)))
        else:
            sample.texts[end] = content


def _members(file: Path) -> Iterator[tuple[str, str, tarfile.TarInfo, bytes | RowError | None]]:
    """(key, end, member, content) of every member with a name of its own; no content where it is of no use, a RowError where it can not be taken."""
    with opened(file) as f:
        try:
            most = file.stat().st_size * (DEFLATE_RATIO if isinstance(f, gzip.GzipFile) else 1)
            header = type("Header", (_Header,), {"most": most})
            with tarfile.open(fileobj=f, mode="r|", bufsize=BLOCK, tarinfo=header, ignore_zeros=True) as tar:
                while (member := tar.next()) is not None:
                    tar.members = []  # it would remember them all  # pyright: ignore[reportAttributeAccessIssue]
                    name = NAME.fullmatch(_clean(member.name))
                    if not member.issparse():  # its size is that of the file with its holes
                        _Header.check_size(member.size, most)  # an extended header may have changed it
                    if name is not None and not member.isdir():
                        yield name[1], name[2].lower(), member, _content(tar, member, name[2].lower())
        except (tarfile.TarError, ValueError, OverflowError, IndexError, KeyError) as error:
            if isinstance(error, FileError):
                raise
            raise FileError(f"not a whole tar ({error}): fetch it again") from error


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo, end: str) -> bytes | RowError | None:
    kind = end.rpartition(".")[2]
    if kind not in (*PICTURES, *TEXTS, JSON):
        return None
    if not member.isfile():
        return RowError("image_path", f"{short(_clean(member.name))}: a link or a device, not a file inside of the tar")
    most = MAX_PICTURE_BYTES if kind in PICTURES else MAX_TEXT_BYTES
    if member.size > most:
        return RowError("image_too_large" if kind in PICTURES else "wrong_type", f"{short(_clean(member.name))}: {member.size} bytes are more than {most}")
    taken = tar.extractfile(member)
    return taken.read() if taken is not None else b""


def _fields(sample: Sample, columns: Columns) -> dict[str, Any]:
    """The fields of a sample: those of its JSON, and its text as the caption."""
    row: dict[str, Any] = {}
    for end, content in sample.texts.items():
        if end.rpartition(".")[2] == JSON:
            try:
                value = json.loads(content)
            except (ValueError, RecursionError) as error:
                raise RowError("broken_json", f"{short(sample.key)}.{end}: not valid JSON: {error}") from error
            row |= value if isinstance(value, dict) else {fields.names(columns, "messages")[0]: value}
    known = [n for role in fields.TEXTS for n in fields.names(columns, role)]
    for end, content in sample.texts.items():
        if end.rpartition(".")[2] in TEXTS and not any(row.get(n) is not None for n in known if n not in fields.names(columns, "caption")):
            try:
                row[fields.names(columns, "caption")[0]] = content.decode("utf-8-sig").strip()
            except UnicodeDecodeError as error:
                raise RowError("bad_text", f"{short(sample.key)}.{end}: not UTF-8 text") from error
    if not row:
        found = ", ".join(f".{end}" for end in sample.others) or "nothing else"
        raise RowError("no_answer", f"{short(sample.key)}: no .txt, .caption or .json beside {len(sample.pictures)} pictures; found {found}")
    return row


def _clean(name: str) -> str:
    """A member's name as text: tarfile keeps bytes that are not UTF-8 as half surrogate pairs."""
    return name.encode("utf-8", "replace").decode()
