"""Step `draw`: a bilingual corpus of coloured shapes in the form in which a user's own files would come.

Training rows are LLaVA JSON with a folder of pictures, benchmarks are VLMEvalKit TSV. No benchmark picture shares its pixels or
its drawing specification with a training picture. Which row has which deliberate defect stands in noise.jsonl, which no step reads.
"""

import base64
import csv
import hashlib
import json
import logging
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from components.data.defects import encode
from components.data.drawn_rows import Drawn, Row, caption_rows, numbered, question_rows, text_rows
from components.data.images import pixel_digest
from components.data.shapes import MAX_COUNT, PAIRS, Scene, picture, random_scene
from components.data.wording import KINDS, LANGUAGES, answer, question
from components.errors import RecipeError
from components.progress import track
from components.recipe.draw import Draw
from components.step import Step

logger = logging.getLogger(__name__)

COLUMNS = ["index", "image", "question", "answer", "category", "language"]
ATTEMPTS = 1000
"""Scenes tried for one picture before the recipe is called impossible."""

JPEG_SHARE = 0.2
"""Share of the training pictures that are JPEG files, the others are PNG: a suffix says nothing about a defect."""


class Studio:
    """Draws pictures that are all different, both in specification and in pixels."""

    def __init__(self, seed: int, min_side: int, max_side: int, attempts: int = ATTEMPTS):
        self.seed, self.min_side, self.max_side, self.attempts = seed, min_side, max_side, attempts
        self._scenes: set[Scene] = set()
        self._pixels: set[str] = set()

    def rng(self, *names: str | int) -> random.Random:
        """Random numbers that depend on the recipe's seed and these names alone."""
        return random.Random("/".join(map(str, ("draw", self.seed, *names))))

    def subjects(self, split: str, number: int, pairs: Sequence[tuple[str, str]]) -> list[tuple[tuple[str, str], int]]:
        """`number` colour-shape pairs with a count, each combination about as often as any other, in random order."""
        deck = [(pair, count) for pair in pairs for count in range(1, MAX_COUNT + 1)]
        rng = self.rng(split, "subjects")
        return [subject for _ in range(0, number, len(deck) or 1) for subject in rng.sample(deck, len(deck))][:number]

    def scene(self, subject: tuple[tuple[str, str], int], rng: random.Random) -> Scene:
        """A scene of this subject, which may be like others: for text."""
        return random_scene(*subject, self.min_side, self.max_side, rng)

    def draw(self, split: str, number: int, pairs: Sequence[tuple[str, str]]) -> Iterator[tuple[Scene, Image.Image]]:
        """`number` new pictures of these colour-shape pairs. Raises RecipeError when there are no more different ones."""
        for i, subject in enumerate(self.subjects(split, number, pairs)):
            rng = self.rng(split, i)
            for _ in range(self.attempts):
                scene = self.scene(subject, rng)
                image = picture(scene)
                digest = pixel_digest(image)
                if scene not in self._scenes and digest not in self._pixels:
                    break
            else:
                raise RecipeError(f"draw: no {number} different {split} pictures between {self.min_side} and {self.max_side} pixels: raise draw.max_side")
            self._scenes.add(scene)
            self._pixels.add(digest)
            yield scene, image


class Album:
    """The folder of training pictures. A file's name is a digest of its bytes: it says nothing about the row."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir()

    def save(self, image_bytes: bytes, suffix: str) -> str:
        """Writes one file and returns its name."""
        name = hashlib.sha256(image_bytes).hexdigest()[:16] + suffix
        (self.folder / name).write_bytes(image_bytes)
        return name


def _write_rows(step: Step, source: str, rows: Sequence[Row], rng: random.Random) -> list[dict[str, Any]]:
    """Writes a source and returns the labels of its defects."""
    samples, labels = numbered(source, rows, rng)
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in samples)
    (step.data / f"{source}.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    return labels


def _write_benchmark(path: Path, drawn: list[tuple[Scene, Image.Image]], rng: random.Random) -> None:
    """Every kind of question for every picture, in every language."""
    with path.open("w", encoding="utf-8", newline="") as f:
        writer = csv.writer(f, delimiter="\t", lineterminator="\n")
        writer.writerow(COLUMNS)
        index = 0
        for scene, image in drawn:
            first = str(index)
            for language in LANGUAGES:
                for kind in KINDS:
                    shown = base64.b64encode(encode(image, "PNG")).decode() if str(index) == first else first
                    writer.writerow([index, shown, question(kind, language, rng), answer(scene, kind, language), kind, language])
                    index += 1


def run(step: Step) -> None:
    """Writes the drawn corpus. The benchmarks are drawn first: they stay the same when the training part grows."""
    config = step.config("draw", Draw)
    withheld = sorted(set(config.withheld))
    seen = [pair for pair in PAIRS if pair not in withheld]
    studio = Studio(step.seed, config.min_side, config.max_side)
    num_withheld = max(6, config.report // 4) if withheld else 0
    for split, number, pairs in (("report", config.report, seen), ("selection", config.selection, seen), ("withheld", num_withheld, withheld)):
        _write_benchmark(step.data / f"{split}.tsv", list(studio.draw(split, number, pairs)), studio.rng(split, "questions"))

    album, forms = Album(step.data / "images"), studio.rng("forms")
    drawn = []
    for scene, image in track(studio.draw("train", config.train, seen), "draw", config.train):
        jpeg = forms.random() < JPEG_SHARE
        drawn.append(Drawn(scene, album.save(encode(image, "JPEG" if jpeg else "PNG"), ".jpg" if jpeg else ".png")))
    extra = [scene for scene, _ in studio.draw("truncated", config.noise.truncated, seen)]
    told = [studio.scene(subject, studio.rng("told", i)) for i, subject in enumerate(studio.subjects("text", 2 * config.train, seen))]
    rng = studio.rng("rows")
    rows = {
        "captions": caption_rows(drawn, extra, config.noise, album.save, rng),
        "questions": question_rows(rng.sample(drawn, len(drawn)), config.noise, rng),
        "text": text_rows(told, rng),
    }
    labels = [label for source, made in rows.items() for label in _write_rows(step, source, made, rng)]
    step.side("noise.jsonl").write_text("".join(json.dumps(label) + "\n" for label in labels), encoding="utf-8")
    logger.info("drew %d training pictures and %d, %d, %d to report, to select and withheld", len(drawn), config.report, config.selection, num_withheld)
