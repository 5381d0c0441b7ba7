"""A row as filters see it. A picture is decoded when the first of them looks at it, and once for all of them."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, TypeVar

import pyarrow as pa
from PIL import Image
from xxhash import xxh3_128_hexdigest

from components.curation.minhash import bands, shingles
from components.data.canonical import IMAGE_MARK
from components.data.images import ImageError, opened, rgb

T = TypeVar("T")

MAX_PIXELS = 50_000_000
"""Larger pictures are not decoded, unless a filter asks for them."""

THUMBNAIL = 8
"""Side of a thumbnail, pixels."""

GRID = 16 * THUMBNAIL
"""Side of the grid on which a picture is sampled: 256 points for each pixel of a thumbnail. A smaller picture has all its pixels there."""


def without_marks(messages: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """The conversation as a text-only model is trained on it: no marks of pictures, no white space around a message."""
    return [{**m, "content": m["content"].replace(f"{IMAGE_MARK}\n", "").replace(IMAGE_MARK, "").strip()} for m in messages]


class Picture:
    """One picture of a row: `bytes` and `path` as they are stored, and what it shows."""

    def __init__(self, image: Mapping[str, Any]):
        self.bytes: bytes = image["bytes"]
        self.path: str = image["path"]

    @cached_property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels as stored (before EXIF rotation), from the header alone. Raises ImageError."""
        return _value(self._file).size

    @property
    def image(self) -> Image.Image:
        """The picture in RGB, upright; not to be changed. Raises ImageError."""
        return self.decoded(MAX_PIXELS)

    @property
    def error(self) -> ImageError | None:
        """Why there is no `image`; None when there is one."""
        try:
            self.decoded(MAX_PIXELS)
        except ImageError as error:
            return error
        return None

    def decoded(self, max_pixels: int) -> Image.Image:
        """As `image`, with another bound. Raises ImageError."""
        width, height = self.size
        if width * height > max_pixels:
            raise ImageError("image_too_large", f"{width} x {height} is more than {max_pixels} pixels")
        return _value(self._image)

    @cached_property
    def sampled(self) -> Image.Image:
        """The pixels of the picture on a grid of at most GRID x GRID, for whatever looks at it as a whole. Raises ImageError."""
        return self.image.resize((min(self.image.width, GRID), min(self.image.height, GRID)), Image.Resampling.NEAREST)

    @cached_property
    def thumbnail(self) -> bytes:
        """RGB pixels of the picture reduced to THUMBNAIL x THUMBNAIL pixels. Raises ImageError."""
        if self.sampled.size == (GRID, GRID):
            return self.sampled.reduce(GRID // THUMBNAIL).tobytes()  # the same but for rounding, faster
        return self.sampled.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX).tobytes()

    @cached_property
    def digest(self) -> str:
        """The same for the same pixels, whatever the file; of a picture that cannot be decoded, for the same bytes."""
        try:
            return f"{self.image.width} {self.image.height} {xxh3_128_hexdigest(_pixels(self.image))}"
        except ImageError:
            return f"bytes {xxh3_128_hexdigest(self.bytes)}"

    @cached_property
    def _file(self) -> Image.Image | ImageError:
        try:
            return opened(self.bytes)
        except ImageError as error:
            return error

    @cached_property
    def _image(self) -> Image.Image | ImageError:
        try:
            return rgb(_value(self._file))
        except ImageError as error:
            return error


def _pixels(image: Image.Image) -> Any:
    """The pixels of an RGB picture as Pillow holds them, four bytes each; not copied where they lie in one block."""
    try:
        return pa.array(image).buffers()[-1]
    except ValueError:
        return image.tobytes("raw", "RGBX")


def _value(found: T | ImageError) -> T:
    if isinstance(found, ImageError):
        raise found
    return found


class Row:
    """One canonical row: `id`, `source`, `language`, `category`, `license`, `messages` and `images` (bytes, path) as they are stored."""

    COLUMNS = ("id", "source", "language", "category", "license", "messages", "images")

    def __init__(self, values: Mapping[str, Any]):
        """`values`: the columns COLUMNS of one row."""
        self.id: str = values["id"]
        self.source: str = values["source"]
        self.language: str = values["language"]
        self.category: str = values["category"]
        self.license: str = values["license"]
        self.messages: list[dict[str, str]] = values["messages"]
        self.images: list[dict[str, Any]] = values["images"]

    @cached_property
    def text(self) -> str:
        """All messages, one below the other, without the marks of pictures."""
        return "\n".join(m["content"] for m in without_marks(self.messages))

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of the roles, the texts and the decoded pictures, in their order."""
        whole = hashlib.sha256(json.dumps([[m["role"], m["content"]] for m in self.messages]).encode())
        for picture in self.pictures:
            whole.update(picture.digest.encode())
        return whole.digest()

    @cached_property
    def bands(self) -> bytes:
        """The MinHash bands of `text`."""
        return bands(shingles(self.text))

    @cached_property
    def pictures(self) -> list[Picture]:
        """The pictures in their order."""
        return [Picture(image) for image in self.images]
