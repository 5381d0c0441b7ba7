"""A perceptual hash of 64 bits: pictures that look alike differ in few of them, whatever their size, format and compression.

The lowest 8 x 8 frequencies of the discrete cosine transform of the grey picture, each against their median (Zauner 2010, section 3.2.1).
"""

import numpy as np
from PIL import Image

SIDE, KEPT = 32, 8
COSINES = np.cos(np.pi / SIDE * np.outer(np.arange(KEPT), np.arange(SIDE) + 0.5))
"""The transform's first rows (DCT-II), float64 (KEPT, SIDE)."""
QUANTUM = 1e-3
"""Frequencies are rounded to this before they are compared, so that the last bits of a sum do not decide."""


def perceptual_hash(image: Image.Image) -> int:
    """The hash of an RGB picture, 0 to 2**64 - 1; its highest bit belongs to the mean, which the median leaves out."""
    grey = image.convert("L")
    whole = image.width == image.height and image.width % SIDE == 0
    small = grey.reduce(image.width // SIDE) if whole else grey.resize((SIDE, SIDE), Image.Resampling.BOX)  # the same but for rounding, faster
    values = np.frombuffer(small.tobytes(), dtype=np.uint8).reshape(SIDE, SIDE).astype(np.float64)
    low = np.rint((COSINES @ values @ COSINES.T).ravel() / QUANTUM)
    median = np.sort(low[1:])[(KEPT * KEPT - 1) // 2]
    return int.from_bytes(np.packbits(low > median).tobytes(), "big")


def distances(one: int, others: np.ndarray) -> np.ndarray:
    """Bits in which a hash differs from each of `others`, uint64 (hashes,) -> uint8 (hashes,)."""
    return np.bitwise_count(others ^ np.uint64(one))
