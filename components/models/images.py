"""Pictures as patch rows: Qwen2-VL's native-resolution preprocessing (arXiv 2409.12191, section 2.1) with the exception that POINTS1.5 makes."""

import math

import numpy as np
from PIL import Image

from .errors import ModelError

MAX_ASPECT = 200
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def smart_size(width: int, height: int, factor: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """(width, height) that a picture is resized to: multiples of `factor`, area within the bounds, aspect ratio about kept.

    As Qwen2-VL's smart_resize. POINTS1.5's exception: an aspect ratio over 200 is refused only when both sides are at least `factor`,
    so tiny pictures pass. Ours: where rounding up, or a side of one `factor`, would pass `max_pixels`, the longer side is cut.
    Raises ModelError for such an aspect ratio.
    """
    if min(width, height) >= factor and max(width, height) > MAX_ASPECT * min(width, height):
        raise ModelError(f"a picture of {width}x{height} pixels is more than {MAX_ASPECT} times as long as wide: crop it.")
    w, h = round(width / factor) * factor, round(height / factor) * factor
    if w * h > max_pixels:
        beta = math.sqrt(width * height / max_pixels)
        w, h = (max(factor, math.floor(side / beta / factor) * factor) for side in (width, height))
    elif w * h < min_pixels:
        beta = math.sqrt(min_pixels / (width * height))
        w, h = (math.ceil(side * beta / factor) * factor for side in (width, height))
    if w * h > max_pixels:
        short = min(w, h, math.isqrt(max_pixels) // factor * factor)
        longest = max_pixels // short // factor * factor
        w, h = min(w, longest if w >= h else short), min(h, short if w >= h else longest)
    return w, h


def normalisation_table() -> np.ndarray:
    """(3, 256) float32: the value of a byte of each channel after x/255 and CLIP's mean and deviation."""
    levels = (np.arange(256, dtype=np.float64) * (1 / 255)).astype(np.float32)
    mean, std = np.array(CLIP_MEAN, np.float32)[:, None], np.array(CLIP_STD, np.float32)[:, None]
    return (levels - mean) / std


TABLE = normalisation_table()


def patch_rows(image: Image.Image, size: tuple[int, int], patch: int, merge: int, temporal_patch: int) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Resizes to `size` (bicubic) and cuts into rows, `merge` x `merge` windows one after the other.

    Returns ((P, 3 * temporal_patch * patch^2) float32, grid (1, rows, columns) in patches); equal to transformers' Qwen2VLImageProcessorPil.
    The work on pixels is done on bytes; normalisation is a table of 256 values a channel, and the frame is repeated last.
    """
    if image.mode != "RGB":
        image = image.convert("RGB")
    if image.size != size:
        image = image.resize(size, Image.Resampling.BICUBIC)
    rows, columns = size[1] // patch, size[0] // patch
    windows = np.asarray(image).reshape(rows // merge, merge, patch, columns // merge, merge, patch, 3)
    pixels = windows.transpose(6, 0, 3, 1, 4, 2, 5).reshape(3, rows * columns, patch * patch)
    out = np.empty((rows * columns, 3, temporal_patch, patch * patch), np.float32)
    for channel in range(3):
        out[:, channel] = TABLE[channel].take(pixels[channel])[:, None]
    return out.reshape(rows * columns, -1), (1, rows, columns)
