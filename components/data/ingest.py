"""Step `ingest-<source>`: a user's rows and pictures become canonical shards; what cannot be used is set aside with its reason.

Pictures travel inside the shards. Here their headers are read; decoding them whole is curation's work.
"""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from components.data import images
from components.data.canonical import IMAGE_MARK, QUARANTINE_SCHEMA, SCHEMA, RowWriter, ShardWriter
from components.data.files import File, NotFoundError, files_of, pictures_of
from components.data.formats.reader import Embedded, Picture
from components.data.formats.table import reader_of
from components.data.identities import Identities
from components.data.language import language_of
from components.data.quarantine import FileError, RowError, short
from components.errors import DataError
from components.models.visual_plan import MAX_ASPECT
from components.objects import fingerprint
from components.recipe.data import Source
from components.step import Step

logger = logging.getLogger(__name__)

SHARD_ROWS = 4096
"""Largest number of rows in an ingested shard."""

BUFFER_BYTES = 16 * 2**20
BUFFER_ROWS = 512
"""Rows are handed on in tables of about this size."""

MAX_PICTURES_BYTES = 256 * 2**20
"""All pictures of a row together."""

MAX_ID = 256
"""Characters of an id that quarantine keeps."""

NAMED = 20
"""Refused rows that are logged one by one; all of them are in quarantine."""


class Ingest:
    """One source on its way into shards. Raises DataError when there is no file of it, or no folder of its pictures."""

    def __init__(self, name: str, source: Source, scratch: Path = Path("fetched")):
        self.name, self.source = name, source
        self.reader = reader_of(source)
        self.pictures = pictures_of(source.images)
        self.files = files_of(source.path, self.reader.suffixes, scratch)
        self.identities = Identities()
        self.rows_in = self.num_embedded = 0
        self.reasons: Counter[str] = Counter()
        self.first_refused: dict[str, Any] | None = None
        self.first_lost: dict[str, Any] | None = None
        """the first row whose picture is not where it should be"""
        self.refuse: Callable[[dict[str, Any]], None] = lambda _: None
        """takes the rows of the quarantine"""

    def sample(self, row: Any) -> dict[str, Any]:
        """The canonical sample of one row. Raises RowError."""
        if isinstance(row, RowError):
            raise row
        draft = self.reader.draft(row)
        pictures, room = [], MAX_PICTURES_BYTES
        for number, picture in enumerate(draft.images, 1):
            pictures.append(self._image(picture, number))
            room -= len(pictures[-1]["bytes"])
            if room < 0:
                raise RowError("image_too_large", f"image {number}: the pictures of the row are more than {MAX_PICTURES_BYTES} bytes together")
        words = " ".join(m["content"] for m in draft.messages).replace(IMAGE_MARK, "")
        return {
            "id": self.identities.claim(draft),
            "images": pictures,
            "messages": draft.messages,
            "source": self.name,
            "language": draft.language or self.source.language or language_of(words),
            "category": self.source.category,
            "license": draft.license or self.source.license,
            "verdicts": [],
        }

    def _image(self, picture: Picture, number: int) -> dict[str, Any]:
        """The canonical image, its header read and nothing decoded. Raises RowError."""
        if isinstance(picture, Embedded):
            self.num_embedded += 1
            content, place = picture.bytes, _label(picture)
            shown = f"image {number} of the row"
        else:
            shown = f"image: {short(picture)}"
            if self.pictures is None:
                raise RowError("image_missing", f"{shown}: the source has no folder of pictures: set `images` of the source in the recipe")
            content, place = self.pictures.read(picture)
        try:
            width, height = images.size(content, self.source.max_pixels)
        except images.ImageError as error:
            raise RowError(error.reason, f"{shown}: {error}") from error
        if max(width, height) > MAX_ASPECT * min(width, height):
            raise RowError("image_shape", f"{shown}: {width} x {height} is more than {MAX_ASPECT} times as long as wide: crop it")
        return {"bytes": content, "path": place}

    def samples(self) -> Iterator[dict[str, Any]]:
        """The canonical samples of all rows that can be used, file by file; `refuse` gets the others.

        A file that cannot be read, or not further, is one more refused row. Raises DataError when that is all that there is, and when the
        folder of pictures is wrong as a whole.
        """
        broken: list[str] = []
        for file in self.files:
            number = 0
            try:
                with file.opened() as here:
                    for number, row in self.reader.rows(here):
                        self.rows_in += 1
                        try:
                            sample = self.sample(row)
                        except RowError as error:
                            self._refuse(file, number, (self.reader.row_id(row) or "")[:MAX_ID], error)
                        else:
                            yield sample
            except FileError as error:
                broken.append(f"{file.name}: {error}")
                self.rows_in += 1
                self._refuse(file, number + 1, "", RowError("broken_file", str(error)))
            if len(broken) == len(self.files):
                raise DataError(broken[0])
        self._check_folder()

    def write(self, data: Path) -> int:
        """Reads the source and writes its shards and quarantine into `data`. Returns the number of rows that came through. Raises DataError as `samples`."""
        buffer: list[dict[str, Any]] = []
        num_bytes = 0
        with ShardWriter(data, SHARD_ROWS) as writer, RowWriter(data / "quarantine.parquet", QUARANTINE_SCHEMA) as quarantine:
            self.refuse = quarantine.add
            for sample in self.samples():
                buffer.append(sample)
                num_bytes += sum(len(i["bytes"]) for i in sample["images"])
                if len(buffer) >= BUFFER_ROWS or num_bytes > BUFFER_BYTES:
                    writer.add(pa.Table.from_pylist(buffer, schema=SCHEMA))
                    buffer, num_bytes = [], 0
            writer.add(pa.Table.from_pylist(buffer, schema=SCHEMA))
        return writer.num_rows

    def _check_folder(self) -> None:
        """Raises DataError when rows name pictures and not one of them is in the folder: then the folder is wrong, not the rows."""
        if (lost := self.first_lost) and self.pictures and not (self.pictures.num_found or self.num_embedded):
            raise DataError(
                f"{self.source.path}: not one of the pictures that its rows name is in {self.pictures.root}; row {lost['row']}: {lost['detail']}; "
                f"the folder holds, for example, {self.pictures.example()}: correct `images` of this source, or the paths in the rows"
            )

    def _refuse(self, file: File, number: int, row_id: str, error: RowError) -> None:
        refused = {"source": self.name, "file": file.name, "row": number, "id": row_id, "reason": error.reason, "detail": str(error)}
        self.first_refused = self.first_refused or refused
        if isinstance(error, NotFoundError):
            self.first_lost = self.first_lost or refused
        self.reasons[error.reason] += 1
        self.refuse(refused)
        if self.reasons.total() <= NAMED:
            logger.warning("%s, row %d (id %s): %s: %s", file.name, number, short(row_id), error.reason, error)


def _label(picture: Embedded) -> str:
    """A name for a picture that came with its row: the one that it brought, below an imagined root, else a digest."""
    parts = [p for p in PurePosixPath(picture.path.replace("\\", "/")).parts if p not in ("/", "..")]
    return "/".join(parts) or hashlib.sha256(picture.bytes).hexdigest()[:32]


def check_objects(source: Source, planned: list[dict[str, Any]]) -> None:
    """Raises DataError when what the source has on S3 is not what the step was planned with."""
    for uri, known in zip(source.objects, planned, strict=True):
        if fingerprint(uri) != known:
            raise DataError(f"{uri}: its objects have changed since this run was planned: run again (for `dvc repro`: `stockpot use` first)")


def run(step: Step) -> None:
    """Ingests the source that the step is named after."""
    name = step.item or ""
    source = step.config(f"sources.{name}", Source)
    planned = step.param(f"objects.{name}") if source.objects else []
    check_objects(source, planned)
    ingest = Ingest(name, source, step.side("fetched"))
    rows_out = ingest.write(step.data)
    check_objects(source, planned)  # pictures are asked for by name alone
    refused = ingest.reasons
    summary = {"rows_in": ingest.rows_in, "rows_out": rows_out, "quarantined": refused.total(), "by_reason": dict(sorted(refused.items()))}
    step.side("summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    logger.info("%s: %d rows in, %d out, %d in quarantine %s", name, ingest.rows_in, rows_out, refused.total(), dict(refused))
