"""Step `ingest-<source>`: a user's rows and pictures become canonical shards; what cannot be used is set aside with its reason.

Pictures travel inside the shards. Here their files are found and their headers read; decoding them whole is curation's work.
"""

import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from components.data import images, llava
from components.data.canonical import IMAGE_MARK, QUARANTINE_SCHEMA, SCHEMA, ShardWriter, write_parquet
from components.data.language import language_of
from components.data.quarantine import RowError, short
from components.errors import DataError
from components.models.visual_plan import MAX_ASPECT
from components.recipe.data import Source
from components.step import Step

logger = logging.getLogger(__name__)

SHARD_ROWS = 4096
"""Largest number of rows in an ingested shard."""

BUFFER_BYTES = 16 * 2**20
BUFFER_ROWS = 512
"""Rows are handed on in tables of about this size."""

MAX_FILE_BYTES = 64 * 2**20
"""Largest file of a picture."""

MAX_ID = 256
"""Characters of an id that quarantine keeps."""

NAMED = 20
"""Refused rows that are logged one by one; all of them are in quarantine."""


class ImageFolder:
    """The one folder that a source's pictures may come from. Raises DataError when it is not there."""

    def __init__(self, root: str | None, max_pixels: int):
        if root is not None and not Path(root).is_dir():
            raise DataError(f"{root}: no such folder: correct `images` of this source in the recipe")
        self.root = Path(root) if root is not None else None
        self.max_pixels = max_pixels
        self.num_found = 0
        self._by_name: dict[str, list[PurePosixPath]] | None = None

    def find(self, path: str) -> PurePosixPath:
        """Where in the folder the picture lies that a row names. Raises RowError for one that is not there, or not inside the folder.

        Known: a path from the folder; one that begins further up, relative or absolute, and leads through a folder of this one's name
        (nothing outside is looked at); the bare name of a file in a sub-folder, if only one is called so.
        """
        if self.root is None:
            raise RowError("image_missing", f"image: {short(path)}: the source has no folder of pictures: set `images` of the source in the recipe")
        pure = PurePosixPath(path)
        name = self.root.absolute().name
        places = [PurePosixPath(*pure.parts[i + 1 :]) for i, part in enumerate(pure.parts[:-1]) if part == name]
        if not pure.is_absolute():
            places.insert(0, pure)
        if not path or "\0" in path or ".." in pure.parts or not places:
            raise RowError("image_path", f"image: {short(path)}: expected a path inside {self.root}")
        for place in places:
            if self._is_here(self.root, place, path):
                return place
        if len(pure.parts) == 1:
            same = self._named(path)
            if len(same) == 1 and self._is_here(self.root, same[0], path):
                return same[0]
            if len(same) > 1:
                raise RowError(
                    "image_missing", f"image: {short(path)}: {len(same)} files in sub-folders of {self.root} have this name: name the sub-folder too"
                )
        raise RowError("image_missing", f"image: {short(path)}: no such file in {self.root}")

    @staticmethod
    def _is_here(root: Path, place: PurePosixPath, path: str) -> bool:
        """Whether the folder has a file at `place`. Raises RowError when that is a link that leads out of it, or in a circle."""
        try:
            real = (root / place).resolve()
            there = real.is_file()
        except RuntimeError as error:  # links in a circle
            raise RowError("image_missing", f"image: {short(path)}: {error}") from error
        except OSError as error:
            if isinstance(error, PermissionError):
                raise
            raise RowError("image_missing", f"image: {short(path)}: {error.strerror}") from error
        if not real.is_relative_to(root.resolve()):
            raise RowError("image_path", f"image: {short(path)}: a link that leads out of {root}")
        return there

    def _named(self, name: str) -> list[PurePosixPath]:
        """Files of this name anywhere below the folder; the folder is walked once."""
        if self._by_name is None:
            assert self.root is not None
            self._by_name = {}
            for folder, _, files in os.walk(self.root):
                for file in files:
                    self._by_name.setdefault(file, []).append(PurePosixPath(Path(folder).relative_to(self.root).as_posix(), file))
        return self._by_name.get(name, [])

    def example(self) -> str:
        """A file that the folder does hold, for a sentence; `nothing` when it is empty."""
        files = (Path(folder, file).relative_to(self.root or "").as_posix() for folder, _, names in os.walk(self.root or "") for file in sorted(names))
        return short(file) if (file := next(files, None)) else "nothing"

    def read(self, path: str) -> dict[str, Any]:
        """The canonical image of a row's path. Raises RowError, the header read and nothing decoded."""
        place = self.find(path)
        self.num_found += 1
        file = Path(self.root or "", place)
        num_bytes = file.stat().st_size
        if num_bytes > MAX_FILE_BYTES:
            raise RowError("image_too_large", f"image: {short(path)}: {num_bytes} bytes are more than {MAX_FILE_BYTES}")
        image_bytes = file.read_bytes()
        try:
            width, height = images.size(image_bytes, self.max_pixels)
        except images.ImageError as error:
            raise RowError(error.reason, f"image: {short(path)}: {error}") from error
        if max(width, height) > MAX_ASPECT * min(width, height):
            raise RowError("image_shape", f"image: {short(path)}: {width} x {height} is more than {MAX_ASPECT} times as long as wide: crop it")
        return {"bytes": image_bytes, "path": str(place)}


class Identities:
    """Stable ids: the row's own, else a digest of its text and its pictures' paths. No id is given twice in a source."""

    def __init__(self) -> None:
        self._seen: set[bytes] = set()

    def _new(self, row_id: str) -> bool:
        key = hashlib.blake2b(row_id.encode(), digest_size=16).digest()
        if key in self._seen:
            return False
        self._seen.add(key)
        return True

    def claim(self, row: llava.LlavaRow) -> str:
        """The row's id. Raises RowError when an earlier row brought the same; rows without an id are numbered instead."""
        if row.id is not None:
            if not self._new(row.id):
                raise RowError("duplicate_id", f"id: {short(row.id)}: an earlier row of this source has the same id")
            return row.id
        content = json.dumps([row.images, row.messages], ensure_ascii=False, separators=(",", ":")).encode()
        digest = hashlib.sha256(content).hexdigest()[:32]
        number = 1
        while not self._new(digest if number == 1 else f"{digest}-{number}"):
            number += 1
        return digest if number == 1 else f"{digest}-{number}"


class Ingest:
    """One source on its way into shards."""

    def __init__(self, name: str, source: Source):
        self.name, self.source = name, source
        self.folder = ImageFolder(source.images, source.max_pixels)
        self.identities = Identities()
        self.quarantine: list[dict[str, Any]] = []
        self.rows_in = 0

    def sample(self, row: Any) -> dict[str, Any]:
        """The canonical sample of one row. Raises RowError."""
        if isinstance(row, RowError):
            raise row
        checked = llava.convert(row)
        pictures = [self.folder.read(path) for path in checked.images]
        return {
            "id": self.identities.claim(checked),
            "images": pictures,
            "messages": checked.messages,
            "source": self.name,
            "language": checked.language or self.source.language or language_of(" ".join(m["content"] for m in checked.messages).replace(IMAGE_MARK, "")),
            "category": self.source.category,
            "license": checked.license or self.source.license,
            "verdicts": [],
        }

    def samples(self) -> Iterator[dict[str, Any]]:
        """The canonical samples of all rows that can be used; the others are in `quarantine` then. Raises DataError when the source is wrong as a whole."""
        for number, row in llava.read(Path(self.source.path)):
            self.rows_in += 1
            try:
                sample = self.sample(row)
            except RowError as error:
                self._refuse(number, row, error)
            else:
                yield sample
        self._check_folder()

    def write(self, data: Path) -> int:
        """Reads the source and writes its shards and quarantine into `data`. Returns the number of rows that came through.

        Raises DataError when the source is wrong as a whole.
        """
        buffer: list[dict[str, Any]] = []
        num_bytes = 0
        with ShardWriter(data, SHARD_ROWS) as writer:
            for sample in self.samples():
                buffer.append(sample)
                num_bytes += sum(len(i["bytes"]) for i in sample["images"])
                if len(buffer) >= BUFFER_ROWS or num_bytes > BUFFER_BYTES:
                    writer.add(pa.Table.from_pylist(buffer, schema=SCHEMA))
                    buffer, num_bytes = [], 0
            writer.add(pa.Table.from_pylist(buffer, schema=SCHEMA))
        write_parquet(pa.Table.from_pylist(self.quarantine, schema=QUARANTINE_SCHEMA), data / "quarantine.parquet")
        return writer.num_rows

    def _check_folder(self) -> None:
        """Raises DataError when rows name pictures and not one of them is in the folder: then the folder is wrong, not the rows."""
        lost = [q for q in self.quarantine if q["reason"] in ("image_missing", "image_path")]
        if lost and self.folder.root and not self.folder.num_found:
            raise DataError(
                f"{self.source.path}: not one of the pictures that its rows name is in {self.folder.root}; row {lost[0]['row']}: {lost[0]['detail']}; "
                f"the folder holds, for example, {self.folder.example()}: correct `images` of this source, or the paths in the rows"
            )

    def _refuse(self, number: int, row: Any, error: RowError) -> None:
        row_id = (llava.row_id(row) or "")[:MAX_ID]
        refused = {"source": self.name, "file": self.source.path, "row": number, "id": row_id, "reason": error.reason, "detail": str(error)}
        self.quarantine.append(refused)
        if len(self.quarantine) <= NAMED:
            logger.warning("%s, row %d (id %s): %s: %s", self.source.path, number, short(row_id), error.reason, error)


def run(step: Step) -> None:
    """Ingests the source that the step is named after."""
    name = step.item or ""
    ingest = Ingest(name, step.config(f"sources.{name}", Source))
    rows_out = ingest.write(step.data)
    reasons = Counter(q["reason"] for q in ingest.quarantine)
    summary = {"rows_in": ingest.rows_in, "rows_out": rows_out, "quarantined": len(ingest.quarantine), "by_reason": dict(sorted(reasons.items()))}
    step.side("summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    logger.info("%s: %d rows in, %d out, %d in quarantine %s", name, ingest.rows_in, rows_out, len(ingest.quarantine), dict(reasons))
