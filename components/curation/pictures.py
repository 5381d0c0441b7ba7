"""Pictures as an annotator, or a reviewer, gets them: a file that everybody reads, upright and of a bounded size."""

import base64
import io

from PIL import Image

from components.curation.row import Row
from components.data.images import ImageError, decode

MAX_PIXELS = 50_000_000
"""Larger pictures are refused before they are decoded, pixels."""
LONGEST_SIDE = 2048
"""Larger ones are made smaller, pixels."""
EVERYWHERE = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}
"""Formats that every server and browser reads -> media type."""
ORIENTATION = 0x0112
"""EXIF tag; 1: upright as stored."""


def as_sent(image_bytes: bytes, longest_side: int = LONGEST_SIDE) -> bytes:
    """The file itself where it is one that everybody sees alike, else a PNG of what curation sees, no side longer than `longest_side`. Raises ImageError."""
    image = decode(image_bytes, MAX_PIXELS)
    with Image.open(io.BytesIO(image_bytes)) as stored:
        plain = stored.format in EVERYWHERE and stored.mode in ("RGB", "L") and stored.getexif().get(ORIENTATION, 1) == 1
    if plain and max(image.size) <= longest_side:
        return image_bytes
    image.thumbnail((longest_side, longest_side), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def data_uri(image_bytes: bytes) -> str:
    """A file made by `as_sent` as a `data:` address."""
    with Image.open(io.BytesIO(image_bytes)) as image:
        kind = EVERYWHERE[str(image.format)]
    return f"data:{kind};base64,{base64.b64encode(image_bytes).decode()}"


def sent(row: Row) -> tuple[bytes, ...]:
    """The pictures of a row as an annotator gets them. Raises ImageError, which names the picture."""
    files = []
    for image in row.images:
        try:
            files.append(as_sent(image["bytes"]))
        except ImageError as error:
            raise ImageError(error.reason, f"image: {image['path']!r}: {error}") from error
    return tuple(files)
