"""Pictures as patch rows, as their visual plan says: Qwen2-VL's row format (arXiv 2409.12191, section 2.1) for every tower."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from .visual_plan import VisualPlan

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalisation_table(mean: Sequence[float] = CLIP_MEAN, std: Sequence[float] = CLIP_STD) -> np.ndarray:
    """(3, 256) float32: the value of a byte of each channel after x/255, mean and deviation."""
    levels = (np.arange(256, dtype=np.float64) * (1 / 255)).astype(np.float32)
    return (levels - np.array(mean, np.float32)[:, None]) / np.array(std, np.float32)[:, None]


TABLE = normalisation_table()


def views(image: Image.Image, plan: VisualPlan, background: tuple[int, ...] = (0, 0, 0)) -> list[Image.Image]:
    """The RGB pictures that the tower sees: those of `plan.boxes` (bicubic), the thumbnail last. `background` fills what a padded canvas leaves free."""
    if image.mode != "RGB":
        image = image.convert("RGB")
    if plan.pad:
        image = _square(image, background)
    canvas = _resized(image, plan.canvas)
    found = [canvas] if plan.view == plan.canvas else [canvas.crop(box) for box in plan.boxes]
    return [*found, _resized(image, plan.view)] if plan.thumbnail else found


def patch_rows(image: Image.Image, size: tuple[int, int], patch: int, merge: int, temporal_patch: int, *, table: np.ndarray = TABLE) -> np.ndarray:
    """Resizes to `size` (bicubic) and cuts into rows, `merge` x `merge` windows one after the other.

    Returns (P, 3 * temporal_patch * patch^2) float32; equal to transformers' Qwen2VLImageProcessorPil.
    The work on pixels is done on bytes; normalisation is a table of 256 values a channel, and the frame is repeated last.
    """
    if image.mode != "RGB":
        image = image.convert("RGB")
    rows, columns = size[1] // patch, size[0] // patch
    windows = np.asarray(_resized(image, size)).reshape(rows // merge, merge, patch, columns // merge, merge, patch, 3)
    pixels = windows.transpose(6, 0, 3, 1, 4, 2, 5).reshape(3, rows * columns, patch * patch)
    out = np.empty((rows * columns, 3, temporal_patch, patch * patch), np.float32)
    for channel in range(3):
        out[:, channel] = table[channel].take(pixels[channel])[:, None]
    return out.reshape(rows * columns, -1)


def _resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)


def _square(image: Image.Image, background: tuple[int, ...]) -> Image.Image:
    """The picture in the middle of a square, as LLaVA-1.5's expand2square."""
    side = max(image.size)
    square = Image.new("RGB", (side, side), background)
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square
