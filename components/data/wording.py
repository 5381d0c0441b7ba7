"""What is asked and said about a drawn scene, in English and Chinese. Answers are one word; captions are well-formed, in several orders."""

import random

from components.data.shapes import Scene

LANGUAGES = ("en", "zh")
KINDS = ("color", "shape", "count")
"""Kinds of questions; a benchmark's `category`."""

WORDS: dict[str, dict[str, dict[str | int, str]]] = {
    "en": {
        "color": {c: c for c in ("red", "green", "blue", "yellow", "purple", "black")},
        "shape": {s: s for s in ("circle", "square", "triangle", "cross")},
        "count": {1: "one", 2: "two", 3: "three", 4: "four"},
    },
    "zh": {
        "color": {"red": "红色", "green": "绿色", "blue": "蓝色", "yellow": "黄色", "purple": "紫色", "black": "黑色"},
        "shape": {"circle": "圆形", "square": "正方形", "triangle": "三角形", "cross": "十字形"},
        "count": {1: "一个", 2: "两个", 3: "三个", 4: "四个"},
    },
}
"""Language -> kind of question -> what is drawn -> its word, which is also the answer."""

PLURALS = {"circle": "circles", "square": "squares", "triangle": "triangles", "cross": "crosses"}
GERMAN = {
    "color": {"red": "rot", "green": "grün", "blue": "blau", "yellow": "gelb", "purple": "violett", "black": "schwarz"},
    "one": {"circle": "ein {}er Kreis", "square": "ein {}es Quadrat", "triangle": "ein {}es Dreieck", "cross": "ein {}es Kreuz"},
    "many": {"circle": "{} {}e Kreise", "square": "{} {}e Quadrate", "triangle": "{} {}e Dreiecke", "cross": "{} {}e Kreuze"},
    "count": {2: "zwei", 3: "drei", 4: "vier"},
}

QUESTIONS = {
    "en": {
        "color": ["What color is it?", "Which color do you see?", "Name the color."],
        "shape": ["What shape is it?", "Which shape do you see?", "Name the shape."],
        "count": ["How many are there?", "How many do you see?", "Count them."],
    },
    "zh": {
        "color": ["是什么颜色？", "你看到哪种颜色？", "请说出颜色。"],
        "shape": ["是什么形状？", "你看到哪种形状？", "请说出形状。"],
        "count": ["图中有几个？", "你看到几个？", "请数一数。"],
    },
}
"""Language -> kind of question -> its wordings."""

DESCRIBE = {"en": ["Describe the image.", "What do you see?"], "zh": ["请描述这张图。", "你看到了什么？"]}


def answer(scene: Scene, kind: str, language: str) -> str:
    """The one-word answer to a question of this kind."""
    return WORDS[language][kind][getattr(scene, kind)]


def captions(scene: Scene, language: str) -> list[str]:
    """All captions of a scene: they name count, colour and shape in different orders."""
    color, shape, count = (answer(scene, kind, language) for kind in KINDS)
    if language == "zh":
        return [f"{count}{color}的{shape}", f"图中有{count}{color}的{shape}。", f"{color}的{shape}有{count}。", f"{shape}是{color}的，一共{count}。"]
    name, verb = (shape, "is") if scene.count == 1 else (PLURALS[shape], "are")
    return [
        f"{count} {color} {name}",
        f"There {verb} {count} {color} {name}.",
        f"In {color}, there {verb} {count} {name}.",
        f"The {name} {verb} {color}, and there {verb} {count}.",
    ]


def caption(scene: Scene, language: str, rng: random.Random) -> str:
    """One of the captions."""
    return rng.choice(captions(scene, language))


def german(scene: Scene) -> str:
    """A caption in a language that no row declares."""
    color = GERMAN["color"][scene.color]
    if scene.count == 1:
        return GERMAN["one"][scene.shape].format(color)
    return GERMAN["many"][scene.shape].format(GERMAN["count"][scene.count], color)


def question(kind: str, language: str, rng: random.Random) -> str:
    """A question of this kind."""
    return rng.choice(QUESTIONS[language][kind])


def description(scene: Scene, language: str, rng: random.Random) -> tuple[str, str]:
    """The request for a caption, and a caption."""
    return rng.choice(DESCRIBE[language]), caption(scene, language, rng)
