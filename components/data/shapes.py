"""Pictures of coloured shapes and what can be said about them: six colours, four shapes, one to four of them."""

import random
from dataclasses import dataclass

from PIL import Image, ImageDraw

COLORS = {"red": (220, 40, 40), "green": (40, 170, 60), "blue": (50, 80, 220), "yellow": (235, 215, 50), "purple": (140, 50, 170), "black": (20, 20, 20)}
BACKGROUNDS = [(200, 200, 200), (170, 200, 225), (225, 200, 190), (150, 160, 150)]
PLURALS = {"circle": "circles", "square": "squares", "triangle": "triangles", "cross": "crosses"}
SHAPES = list(PLURALS)
COUNTS = ["one", "two", "three", "four"]
PAIRS = [(color, shape) for color in COLORS for shape in SHAPES]

DESCRIBE = ["Describe the image.", "What do you see?"]
QUESTIONS = {
    "color": ["What color is it?", "Which color do you see?", "Name the color."],
    "shape": ["What shape is it?", "Which shape do you see?", "Name the shape."],
    "count": ["How many shapes are there?", "How many do you see?", "Count the shapes."],
}
"""Kind of question -> its wordings."""


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
    def count(self) -> str:
        return COUNTS[len(self.places) - 1]

    @property
    def caption(self) -> str:
        """Such as `two red circles`."""
        return f"{self.count} {self.color} {self.shape if len(self.places) == 1 else PLURALS[self.shape]}"

    def answer(self, kind: str) -> str:
        """The one-word answer to a question of this kind (a key of QUESTIONS)."""
        return {"color": self.color, "shape": self.shape, "count": self.count}[kind]


def random_scene(pair: tuple[str, str], min_side: int, max_side: int, rng: random.Random) -> Scene:
    """A scene of one colour-shape pair; number, size, background and places are drawn by `rng`.

    The picture is cut into one, two or four cells, so that shapes never overlap.
    """
    width, height = rng.randint(min_side, max_side), rng.randint(min_side, max_side)
    count = rng.randint(1, len(COUNTS))
    columns, rows = {1: (1, 1), 2: (2, 1) if width >= height else (1, 2)}.get(count, (2, 2))
    cell_width, cell_height = width / columns, height / rows
    places = []
    for cell in rng.sample(range(columns * rows), count):
        half = min(cell_width, cell_height) * rng.uniform(0.30, 0.44)
        x = cell_width * (cell % columns + 0.5) + rng.uniform(-0.6, 0.6) * (cell_width / 2 - half)
        y = cell_height * (cell // columns + 0.5) + rng.uniform(-0.6, 0.6) * (cell_height / 2 - half)
        places.append((round(x), round(y), int(half)))
    return Scene(width, height, rng.choice(BACKGROUNDS), *pair, tuple(sorted(places)))


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
