"""Deliberate defects of texts and pictures: what careless collection does to a corpus."""

import io
import random
from itertools import pairwise

from PIL import Image, ImageEnhance

from components.data.shapes import Scene
from components.data.wording import LANGUAGES, caption, german

WRONG_CHARACTERS = "他在不了我们来大上国时要就出会也对生能"
"""Frequent Chinese characters that no drawn text has."""


def encode(image: Image.Image, form: str, quality: int = 95) -> bytes:
    """The file of a picture: PNG, or JPEG at full colour resolution."""
    buffer = io.BytesIO()
    image.save(buffer, form, **({"quality": quality, "subsampling": 0} if form == "JPEG" else {}))
    return buffer.getvalue()


def near_copy(image: Image.Image, rng: random.Random) -> bytes:
    """The file of nearly the same picture: packed harder, a little smaller or larger, or a little brighter or darker."""
    way = rng.choice(["packed", "resized", "brightened"])
    if way == "resized":
        factor = rng.choice([0.9, 1.1])
        image = image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BICUBIC)
    elif way == "brightened":
        image = ImageEnhance.Brightness(image).enhance(rng.choice([0.96, 1.04]))
    return encode(image, "JPEG", quality=80 if way == "packed" else 90)


def truncated(image: Image.Image) -> bytes:
    """A JPEG file that is cut off after four fifths."""
    whole = encode(image, "JPEG")
    return whole[: len(whole) * 4 // 5]


def wrong_language(scene: Scene, language: str, rng: random.Random) -> str:
    """A caption that is not in `language`: mostly German, else the other language of the corpus."""
    (other,) = (x for x in LANGUAGES if x != language)
    return german(scene) if rng.random() < 0.7 else caption(scene, other, rng)


def _units(text: str, language: str) -> list[str]:
    return list(text) if language == "zh" else text.split()


def _join(units: list[str], language: str) -> str:
    return ("" if language == "zh" else " ").join(units)


def scrambled(text: str, language: str, rng: random.Random) -> str:
    """The words (Chinese: characters) in random order, no two neighbours in their old order; needs three of them."""
    units = _units(text, language)
    followed = set(pairwise(units))
    while True:
        mixed = rng.sample(units, len(units))
        if not followed & set(pairwise(mixed)):
            return _join(mixed, language)


def misspelt(text: str, language: str, rng: random.Random) -> str:
    """Every word of three letters and more with two letters exchanged; in Chinese every third character is a wrong one."""
    if language == "zh":
        hit = range(rng.randrange(min(2, len(text))), len(text), 3)
        return "".join(rng.choice(WRONG_CHARACTERS) if i in hit else c for i, c in enumerate(text))
    return " ".join(_exchanged(word, rng) for word in text.split())


def _exchanged(word: str, rng: random.Random) -> str:
    places = [i for i in range(len(word) - 1) if word[i].isalpha() and word[i + 1].isalpha() and word[i] != word[i + 1]]
    if len(word) < 3 or not places:
        return word
    i = rng.choice(places)
    return word[:i] + word[i + 1] + word[i] + word[i + 2 :]


def stuttered(text: str, language: str, rng: random.Random) -> str:
    """Every other word (Chinese: character) said twice."""
    start = rng.randrange(2)
    return _join([u for i, unit in enumerate(_units(text, language)) for u in [unit] * (2 if i % 2 == start else 1)], language)


def ungrammatical(text: str, language: str, rng: random.Random) -> str:
    """A broken sentence: words in the wrong order, misspelt or stuttered."""
    return rng.choice([scrambled, misspelt, stuttered])(text, language, rng)
