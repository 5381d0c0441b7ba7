"""Pictures as bytes: checked before they are decoded, then decoded whole, upright and in RGB."""

import hashlib
import io

import numpy as np
from PIL import Image

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
"""Formats that are read. Others are refused: some of Pillow's readers start programs (EPS) or read more than one file."""

EXIF_ORIENTATION = 0x0112
T = Image.Transpose
UPRIGHT = {1: None, 2: T.FLIP_LEFT_RIGHT, 3: T.ROTATE_180, 4: T.FLIP_TOP_BOTTOM, 5: T.TRANSPOSE, 6: T.ROTATE_270, 7: T.TRANSVERSE, 8: T.ROTATE_90}
"""EXIF orientation -> what turns the picture upright."""


class ImageError(ValueError):
    """A picture that cannot be used; `reason` is the quarantine code, the message says what was found."""

    def __init__(self, reason: str, message: str):
        super().__init__(message)
        self.reason = reason


def opened(image_bytes: bytes) -> Image.Image:
    """The picture with its header read, and nothing decoded. Raises ImageError with reason image_empty, image_unreadable or image_too_large."""
    if not image_bytes:
        raise ImageError("image_empty", "the file is empty")
    try:
        return Image.open(io.BytesIO(image_bytes), formats=FORMATS)
    except MemoryError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError("image_too_large", str(error)) from error
    except Exception as error:  # a broken header may raise anything: struct.error, SyntaxError, ValueError, KeyError, ...
        raise ImageError("image_unreadable", f"no picture in one of the formats {', '.join(FORMATS)}") from error


def size(image_bytes: bytes, max_pixels: int) -> tuple[int, int]:
    """Width and height in pixels as stored (before EXIF rotation), from the header alone.

    Raises ImageError with reason image_empty, image_unreadable or image_too_large (more than `max_pixels` pixels).
    """
    with opened(image_bytes) as image:
        return _bounded(image, max_pixels)


def _bounded(image: Image.Image, max_pixels: int) -> tuple[int, int]:
    width, height = image.size
    if width * height > max_pixels:
        raise ImageError("image_too_large", f"{width} x {height} is more than {max_pixels} pixels")
    return width, height


def decode(image_bytes: bytes, max_pixels: int) -> Image.Image:
    """The first frame as an RGB picture on white, rotated upright as its EXIF orientation says, 16 bits a channel scaled to 8.

    The size is checked before anything is decoded. Raises ImageError with reason image_empty, image_unreadable,
    image_too_large (more than `max_pixels` pixels) or image_truncated (the header is fine, the rest is not).
    """
    image = opened(image_bytes)
    _bounded(image, max_pixels)
    return rgb(image)


def rgb(image: Image.Image) -> Image.Image:
    """As `decode`, of a picture that is open; its pixels may become part of the result."""
    try:
        image.load()
    except MemoryError:
        raise
    except Exception as error:  # a damaged body may raise anything, see `opened`
        raise ImageError("image_truncated", f"the picture is cut off or damaged: {error}") from error
    try:
        return _on_white(_eight_bits(_upright(image)))
    except MemoryError:
        raise
    except Exception as error:
        raise ImageError("image_unreadable", f"a picture of mode {image.mode} that cannot be made RGB: {error}") from error


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none, or where the EXIF data is damaged."""
    try:
        found = image.getexif().get(EXIF_ORIENTATION)
    except Exception:  # a damaged block may raise anything; the pixels are fine
        return 1
    return found if found in UPRIGHT else 1


def _upright(image: Image.Image) -> Image.Image:
    turn = UPRIGHT[orientation(image)]
    return image if turn is None else image.transpose(turn)


def _eight_bits(image: Image.Image) -> Image.Image:
    """A grey picture of more than 8 bits as one of 8: Pillow would clip. Whole numbers are 16 bits, fractions 0 to 1, or 0 to 255."""
    if not image.mode.startswith(("I", "F")):
        return image
    values = np.asarray(image)
    if image.mode == "F":
        values = np.nan_to_num(values)
        grey = (values * 255 if values.max() <= 1 else values).round().clip(0, 255)
    else:
        grey = values.clip(0, 65535) >> 8  # the high byte, as Pillow does for 16 bits of red, green and blue
        grey = np.where(values == image.info.get("transparency", -1), 255, grey)
    return Image.fromarray(grey.astype(np.uint8))


def _on_white(image: Image.Image) -> Image.Image:
    """RGB; what is transparent shows white paper. Its own colour is arbitrary: often black, so that a black drawing would vanish."""
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    drawing = image.convert("RGBA")
    paper = Image.new("RGBA", drawing.size, "white")
    paper.alpha_composite(drawing)
    return paper.convert("RGB")


def pixel_digest(image: Image.Image) -> str:
    """SHA-256 of mode, size and pixels: equal pictures have equal digests whatever their file format."""
    head = f"{image.mode} {image.width} {image.height} ".encode()
    return hashlib.sha256(head + image.tobytes()).hexdigest()
