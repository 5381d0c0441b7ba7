"""Varied copies of a picture, of the same size: what it takes in tokens does not change."""

import math
import random

import numpy as np
from PIL import Image, ImageEnhance

from components.recipe.augment import Augment


def rng_of(seed: int, row_id: str, picture: int, copy: int) -> random.Random:
    """Random numbers of one copy of one picture of one row, and of nothing else."""
    return random.Random(f"augment/{seed}/{row_id}/{picture}/{copy}")


def vary(image: Image.Image, config: Augment, rng: random.Random) -> Image.Image:
    """An RGB picture shifted, scaled, stretched, turned, brightened, with more or less contrast; what comes in at the sides repeats the edge."""
    zoom, stretch = (math.exp(rng.uniform(-1, 1) * math.log1p(share)) for share in (config.scale, config.stretch))
    shift_x, shift_y = (rng.uniform(-config.shift, config.shift) * side for side in image.size)
    angle = math.radians(rng.uniform(-config.rotate, config.rotate))
    flip = -1 if config.flip and rng.random() < 0.5 else 1
    varied = _moved(image, (flip * zoom * math.sqrt(stretch), zoom / math.sqrt(stretch)), (shift_x, shift_y), angle)
    varied = ImageEnhance.Brightness(varied).enhance(1 + rng.uniform(-config.brightness, config.brightness))
    return ImageEnhance.Contrast(varied).enhance(1 + rng.uniform(-config.contrast, config.contrast))


def _moved(image: Image.Image, zoom: tuple[float, float], shift: tuple[float, float], angle: float) -> Image.Image:
    """About the middle: zoomed in width and height (1: as it is), turned (radians), then shifted (pixels)."""
    (width, height), (zoom_x, zoom_y), (shift_x, shift_y) = image.size, zoom, shift
    cos, sin = math.cos(angle), math.sin(angle)
    # from a pixel of the result back to one of the picture (Image.transform)
    a, b, d, e = cos / zoom_x, sin / zoom_x, -sin / zoom_y, cos / zoom_y
    corners = [(x - shift_x, y - shift_y) for x in (-width / 2, width / 2) for y in (-height / 2, height / 2)]
    margin_x = math.ceil(max(0, max(abs(a * x + b * y) for x, y in corners) - width / 2)) + 2
    margin_y = math.ceil(max(0, max(abs(d * x + e * y) for x, y in corners) - height / 2)) + 2
    wide = Image.fromarray(np.pad(np.asarray(image), ((margin_y, margin_y), (margin_x, margin_x), (0, 0)), mode="edge"))
    middle_x, middle_y = width / 2 + shift_x, height / 2 + shift_y
    c = wide.width / 2 - a * middle_x - b * middle_y
    f = wide.height / 2 - d * middle_x - e * middle_y
    return wide.transform(image.size, Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BICUBIC)
