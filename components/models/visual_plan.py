"""What becomes of a picture of a given size: the one source of view sizes, patch grids and token counts. Pure functions of sizes, without pixels.

Three resolutions: native (Qwen2-VL, POINTS1.5), fixed (LLaVA-1.5), dynamic tiles and a thumbnail (InternVL-1.5).
"""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Literal

from .errors import ModelError

MAX_ASPECT = 200


@dataclass(frozen=True)
class VisualPlan:
    """A picture is brought to `canvas`, cut into views of the size `view`, row by row; a thumbnail of the whole may follow. Sizes are (width, height)."""

    canvas: tuple[int, int]
    view: tuple[int, int]
    patch: int
    merge: int
    thumbnail: bool = False
    pad: bool = False
    """the picture keeps its aspect ratio in the middle of the canvas, the rest is background"""

    @property
    def boxes(self) -> list[tuple[int, int, int, int]]:
        """(left, upper, right, lower) of the views on the canvas."""
        width, height = self.view
        return [(x, y, x + width, y + height) for y in range(0, self.canvas[1], height) for x in range(0, self.canvas[0], width)]

    @property
    def grids(self) -> list[tuple[int, int, int]]:
        """(1, rows, columns) of every view, in patches."""
        width, height = self.view
        number = (self.canvas[0] // width) * (self.canvas[1] // height) + self.thumbnail
        return [(1, height // self.patch, width // self.patch)] * number

    @property
    def num_tokens(self) -> int:
        """Tokens that the picture takes in the language model."""
        return sum(rows * columns for _, rows, columns in self.grids) // self.merge**2


@dataclass(frozen=True)
class Native:
    """One view of about the picture's own size, its area within the bounds."""

    kind: ClassVar = "native"
    min_pixels: int
    max_pixels: int

    def plan(self, width: int, height: int, patch: int, merge: int) -> VisualPlan:
        """Raises ModelError for a picture that is too long and thin."""
        size = smart_size(width, height, patch * merge, self.min_pixels, self.max_pixels)
        return VisualPlan(size, size, patch, merge)

    def check(self, patch: int, merge: int) -> None:
        """Raises ModelError for bounds that no picture can meet."""
        factor = patch * merge
        if self.max_pixels < max(self.min_pixels, factor**2):
            raise ModelError(f"max_pixels {self.max_pixels} must be at least min_pixels {self.min_pixels} and one window, {factor}x{factor} pixels.")


@dataclass(frozen=True)
class Fixed:
    """One square view of `size` pixels; `fit` resize changes the aspect ratio, pad fills up with background (LLaVA-1.5)."""

    kind: ClassVar = "fixed"
    size: int
    fit: Literal["resize", "pad"] = "pad"

    def plan(self, width: int, height: int, patch: int, merge: int) -> VisualPlan:
        """The same for every picture."""
        return VisualPlan((self.size, self.size), (self.size, self.size), patch, merge, pad=self.fit == "pad" and width != height)

    def check(self, patch: int, merge: int) -> None:
        """Raises ModelError when the square is not made of whole windows."""
        _check_square(self.size, patch, merge)


@dataclass(frozen=True)
class Tiles:
    """Square tiles of `size` pixels, at most `max_tiles`, in the arrangement nearest to the aspect ratio; with several tiles a thumbnail of the whole last."""

    kind: ClassVar = "tiles"
    size: int
    max_tiles: int
    min_tiles: int = 1
    thumbnail: bool = True

    def plan(self, width: int, height: int, patch: int, merge: int) -> VisualPlan:
        """See `arrangement`."""
        columns, rows = arrangement(width, height, self.size, self.min_tiles, self.max_tiles)
        return VisualPlan((columns * self.size, rows * self.size), (self.size, self.size), patch, merge, thumbnail=self.thumbnail and columns * rows > 1)

    def check(self, patch: int, merge: int) -> None:
        """Raises ModelError when a tile is not made of whole windows, or no number of tiles is allowed."""
        _check_square(self.size, patch, merge)
        if not 1 <= self.min_tiles <= self.max_tiles:
            raise ModelError(f"{self.min_tiles} to {self.max_tiles} tiles: a picture needs at least one, and the smallest number first.")


Resolution = Native | Fixed | Tiles
KINDS: dict[str, type[Resolution]] = {"native": Native, "fixed": Fixed, "tiles": Tiles}


def to_dict(resolution: Resolution) -> dict[str, Any]:
    """For a JSON file."""
    return {"kind": resolution.kind, **asdict(resolution)}


def from_dict(values: dict[str, Any]) -> Resolution:
    """Reads what `to_dict` wrote. Raises TypeError for other keys, KeyError for another kind."""
    fields = dict(values)
    return KINDS[fields.pop("kind")](**fields)


def within(resolution: Resolution, **bounds: int | None) -> Resolution:
    """The resolution with other bounds (`min_pixels`, `max_pixels`, `max_tiles`; None leaves one as it is): what a benchmark asks for.

    Raises ModelError for a bound that this kind of resolution does not have.
    """
    given = {name: value for name, value in bounds.items() if value is not None}
    if unknown := sorted(given.keys() - asdict(resolution).keys()):
        raise ModelError(f"{', '.join(unknown)}: the model's resolution is {resolution.kind}, which has no such bound.")
    return replace(resolution, **given)


def smart_size(width: int, height: int, factor: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """(width, height) that a picture is resized to: multiples of `factor`, area within the bounds, aspect ratio about kept.

    As Qwen2-VL's smart_resize (arXiv 2409.12191, section 2.1). POINTS1.5's exception: an aspect ratio over 200 is refused only when both
    sides are at least `factor`, so tiny pictures pass. Ours: where rounding up, or a side of one `factor`, would pass `max_pixels`, the
    longer side is cut. Raises ModelError for such an aspect ratio.
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


def arrangement(width: int, height: int, size: int, min_tiles: int, max_tiles: int) -> tuple[int, int]:
    """(columns, rows) of tiles whose aspect ratio is nearest to the picture's; of equally near ones the larger, if the picture fills half of it.

    InternVL-1.5's dynamic preprocessing (arXiv 2404.16821, section 3.3), candidates in the order that transformers gives them.
    """
    best, nearest = (1, 1), math.inf
    for columns, rows in ratios(min_tiles, max_tiles):
        difference = abs(width / height - columns / rows)
        if difference < nearest or (difference == nearest and width * height > 0.5 * size**2 * columns * rows):
            best, nearest = (columns, rows), difference
    return best


def ratios(min_tiles: int, max_tiles: int) -> list[tuple[int, int]]:
    """All (columns, rows) of `min_tiles` to `max_tiles` tiles, fewer tiles first."""
    sides = range(1, max_tiles + 1)
    return sorted(((c, r) for c in sides for r in sides if min_tiles <= c * r <= max_tiles), key=lambda cr: cr[0] * cr[1])


def _check_square(size: int, patch: int, merge: int) -> None:
    if size < 1 or size % (patch * merge):
        raise ModelError(f"a view of {size}x{size} pixels is not made of whole windows of {patch * merge} pixels (patch {patch}, merge {merge}).")
