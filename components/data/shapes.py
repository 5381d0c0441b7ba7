"""Pictures of coloured shapes: six colours, four shapes, one to four of them on a plain background."""

import random
from dataclasses import dataclass

from PIL import Image, ImageDraw

COLORS = {"red": (220, 40, 40), "green": (40, 170, 60), "blue": (50, 80, 220), "yellow": (235, 215, 50), "purple": (140, 50, 170), "black": (20, 20, 20)}
BACKGROUNDS = [(200, 200, 200), (170, 200, 225), (225, 200, 190), (150, 160, 150)]
BACKGROUND_SPREAD = 12
"""How far each channel of a background is from one of BACKGROUNDS at most."""

SHAPES = ["circle", "square", "triangle", "cross"]
MAX_COUNT = 4
PAIRS = [(color, shape) for color in COLORS for shape in SHAPES]


@dataclass(frozen=True)
class Scene:
    """The full drawing specification: equal scenes give equal pixels. Lengths in pixels."""

    width: int
    height: int
    background: tuple[int, int, int]
    color: str
    shape: str
    places: tuple[tuple[int, int, int], ...]
    """Centre x, centre y and half side of every shape."""

    @property
    def count(self) -> int:
        return len(self.places)


def random_scene(pair: tuple[str, str], count: int, min_side: int, max_side: int, rng: random.Random) -> Scene:
    """A scene of `count` shapes of one colour-shape pair; size, background and places are drawn by `rng`.

    Width and height are drawn apart, so aspect ratios go up to max_side / min_side. The picture is cut into one, two or four cells,
    so that shapes never overlap.
    """
    width, height = rng.randint(min_side, max_side), rng.randint(min_side, max_side)
    columns, rows = {1: (1, 1), 2: (2, 1) if width >= height else (1, 2)}.get(count, (2, 2))
    cell_width, cell_height = width / columns, height / rows
    places = []
    for cell in rng.sample(range(columns * rows), count):
        half = min(cell_width, cell_height) * rng.uniform(0.30, 0.44)
        x = cell_width * (cell % columns + 0.5) + rng.uniform(-0.6, 0.6) * (cell_width / 2 - half)
        y = cell_height * (cell // columns + 0.5) + rng.uniform(-0.6, 0.6) * (cell_height / 2 - half)
        places.append((round(x), round(y), int(half)))
    red, green, blue = (channel + rng.randint(-BACKGROUND_SPREAD, BACKGROUND_SPREAD) for channel in rng.choice(BACKGROUNDS))
    return Scene(width, height, (red, green, blue), *pair, tuple(sorted(places)))


def picture(scene: Scene) -> Image.Image:
    """The scene as an RGB picture."""
    image = Image.new("RGB", (scene.width, scene.height), scene.background)
    draw = ImageDraw.Draw(image)
    color = COLORS[scene.color]
    for x, y, half in scene.places:
        box = (x - half, y - half, x + half, y + half)
        if scene.shape == "circle":
            draw.ellipse(box, fill=color)
        elif scene.shape == "square":
            draw.rectangle(box, fill=color)
        elif scene.shape == "triangle":
            draw.polygon([(x, y - half), (x - half, y + half), (x + half, y + half)], fill=color)
        else:
            arm = round(half * 0.35)
            draw.rectangle((x - arm, y - half, x + arm, y + half), fill=color)
            draw.rectangle((x - half, y - arm, x + half, y + arm), fill=color)
    return image
