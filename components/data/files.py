"""The files of a source, here or on S3, in the order of their names; and the folder that its pictures may come from."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from components.data.formats.reader import MAX_PICTURE_BYTES
from components.data.quarantine import RowError, short
from components.errors import DataError
from components.objects import bucket_of, fetch, fits, key_of, listed
from components.recipe.data import S3, fixed_part
from components.storage import Object


@dataclass(frozen=True)
class File:
    """One file of rows. `name` is what the recipe's path leads to: a path in the project, or an address."""

    name: str
    here: Path
    """where it is, or is put when it is opened"""
    there: Object | None = None
    """what it is on S3"""

    @contextlib.contextmanager
    def opened(self) -> Iterator[Path]:
        """The file on this disk. One from S3 is fetched, and removed again."""
        if self.there is None:
            yield self.here
            return
        self.here.parent.mkdir(parents=True, exist_ok=True)
        try:
            fetch(self.name, self.there, self.here)
            yield self.here
        finally:
            self.here.unlink(missing_ok=True)


def files_of(path: str, suffixes: Sequence[str], scratch: Path) -> list[File]:
    """The files that a source's `path` means: itself; of a folder those with one of the suffixes, hidden ones left out; of a pattern those that fit.

    Files from S3 go through `scratch`. Raises DataError when there are none.
    """
    if path.startswith(S3):
        bucket = f"{S3}{path.removeprefix(S3).partition('/')[0]}"
        one = key_of(path)
        found = [
            File(f"{bucket}/{o.key}", scratch / PurePosixPath(o.key).name, o)
            for o in sorted(listed(path))
            if o.key == one or fixed_part(path) != path or _is_one(o.key.removeprefix(one), suffixes)
        ]
    elif Path(path).is_file():
        found = [File(path, Path(path))]
    else:
        base = Path(fixed_part(path))
        if not base.is_dir():
            raise DataError(f"{path}: no such file or folder: correct `path` of this source in the recipe")
        names = sorted(p.as_posix() for p in base.rglob("*") if p.is_file())
        pattern = Path(path).as_posix()
        whole = base == Path(path)
        found = [File(n, Path(n)) for n in names if (_is_one(n.removeprefix(pattern), suffixes) if whole else fits(pattern, n))]
    if not found:
        raise DataError(f"{path}: not one file whose name ends in {', '.join(suffixes)}: correct `path` or `format` of this source in the recipe")
    return found


def _is_one(below: str, suffixes: Sequence[str]) -> bool:
    """Whether a path below a folder is a file of the format; hidden ones are not."""
    return below.lower().endswith(tuple(suffixes)) and not any(part.startswith(".") for part in below.split("/"))


class NotFoundError(RowError):
    """A picture is not where the recipe says that pictures are."""


class Pictures(Protocol):
    """Where the pictures lie that rows name by a path."""

    root: str
    num_found: int

    def read(self, path: str) -> tuple[bytes, str]:
        """A picture's file, and its place below the root. Raises NotFoundError for one that is not there or outside, RowError for one that is too large."""
        ...

    def example(self) -> str:
        """A file that is there, for a sentence; `nothing` when it is empty."""
        ...


def pictures_of(images: str | None) -> Pictures | None:
    """The place that a source's `images` names; None where it names none. Raises DataError when there is no such folder."""
    if images is None:
        return None
    return Bucket(images) if images.startswith(S3) else Folder(images)


def places(path: str, root: str, name: str) -> list[PurePosixPath]:
    """What a row's path may mean below the root, best first: all of it; and, when it begins further up, what is behind a folder of the root's name.

    Raises NotFoundError for a path that leads out.
    """
    pure = PurePosixPath(path)
    found = [PurePosixPath(*pure.parts[i + 1 :]) for i, part in enumerate(pure.parts[:-1]) if part == name]
    if not pure.is_absolute():
        found.insert(0, pure)
    if not path or "\0" in path or ".." in pure.parts or not found:
        raise NotFoundError("image_path", f"image: {short(path)}: expected a path inside {root}")
    return found


def _check_size(path: str, num_bytes: int) -> None:
    if num_bytes > MAX_PICTURE_BYTES:
        raise RowError("image_too_large", f"image: {short(path)}: {num_bytes} bytes are more than {MAX_PICTURE_BYTES}")


class Bucket:
    """Objects below an address on S3. Each is asked for by name: no list of them is kept."""

    def __init__(self, root: str):
        self.root, self.bucket, self.prefix, self.num_found = root, bucket_of(root), key_of(root), 0

    def read(self, path: str) -> tuple[bytes, str]:
        for place in places(path, self.root, PurePosixPath(self.prefix).name):
            key = f"{self.prefix}/{place}" if self.prefix else str(place)
            try:
                with self.bucket.opened(key) as (num_bytes, body):
                    content = body.read() if num_bytes <= MAX_PICTURE_BYTES else b""
            except KeyError:
                continue
            self.num_found += 1
            _check_size(path, num_bytes)
            return content, str(place)
        raise NotFoundError("image_missing", f"image: {short(path)}: no such object in {self.root}")

    def example(self) -> str:
        return next((short(o.key.removeprefix(f"{self.prefix}/")) for o in listed(self.root)), "nothing")


class Folder:
    """A folder here. Links inside may not lead out. The bare name of a file in a sub-folder is enough, if only one is called so."""

    def __init__(self, root: str):
        if not Path(root).is_dir():
            raise DataError(f"{root}: no such folder: correct `images` of this source in the recipe")
        self.root, self.folder, self.num_found = root, Path(root), 0
        self._by_name: dict[str, list[PurePosixPath]] | None = None

    def read(self, path: str) -> tuple[bytes, str]:
        place = self._find(path)
        self.num_found += 1
        file = self.folder / place
        _check_size(path, file.stat().st_size)
        return file.read_bytes(), str(place)

    def _find(self, path: str) -> PurePosixPath:
        for place in places(path, self.root, self.folder.absolute().name):
            if self._is_here(place, path):
                return place
        if "/" not in path:
            same = self._named(path)
            if len(same) == 1 and self._is_here(same[0], path):
                return same[0]
            if len(same) > 1:
                raise RowError(
                    "image_missing", f"image: {short(path)}: {len(same)} files in sub-folders of {self.root} have this name: name the sub-folder too"
                )
        raise NotFoundError("image_missing", f"image: {short(path)}: no such file in {self.root}")

    def _is_here(self, place: PurePosixPath, path: str) -> bool:
        """Whether the folder has a file at `place`. Raises NotFoundError when that is a link that leads out of it, or in a circle."""
        try:
            real = (self.folder / place).resolve()
            there = real.is_file()
        except RuntimeError as error:  # links in a circle
            raise NotFoundError("image_missing", f"image: {short(path)}: links in a circle") from error
        except OSError as error:
            if isinstance(error, PermissionError):
                raise
            raise NotFoundError("image_missing", f"image: {short(path)}: {error.strerror}") from error
        if not real.is_relative_to(self.folder.resolve()):
            raise NotFoundError("image_path", f"image: {short(path)}: a link that leads out of {self.root}")
        return there

    def _named(self, name: str) -> list[PurePosixPath]:
        """Files of this name anywhere below the folder; the folder is walked once."""
        if self._by_name is None:
            self._by_name = {}
            for folder, _, files in os.walk(self.folder):
                for file in files:
                    self._by_name.setdefault(file, []).append(PurePosixPath(Path(folder).relative_to(self.folder).as_posix(), file))
        return self._by_name.get(name, [])

    def example(self) -> str:
        files = (Path(folder, file).relative_to(self.folder).as_posix() for folder, _, names in os.walk(self.folder) for file in sorted(names))
        return short(file) if (file := next(files, None)) else "nothing"
