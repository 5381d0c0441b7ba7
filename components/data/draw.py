"""Step `draw`: a corpus of coloured shapes in the form in which a user's own files would come.

Training rows are LLaVA JSON with a folder of pictures, benchmarks are VLMEvalKit TSV. No benchmark picture shares its pixels or
its drawing specification with a training picture. What a deliberate defect is stands in the row's id alone; nothing reads it there.
"""

import base64
import csv
import io
import json
import logging
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from components.data.images import pixel_digest
from components.data.shapes import DESCRIBE, PAIRS, QUESTIONS, Scene, picture, random_scene
from components.errors import RecipeError
from components.progress import track
from components.recipe.draw import Draw
from components.step import Step

logger = logging.getLogger(__name__)

COLUMNS = ["index", "image", "question", "answer", "category", "language"]
ATTEMPTS = 1000
"""Scenes tried for one picture before the recipe is called impossible."""


class Studio:
    """Draws pictures that are all different, both in specification and in pixels."""

    def __init__(self, seed: int, min_side: int, max_side: int, attempts: int = ATTEMPTS):
        self.seed, self.min_side, self.max_side, self.attempts = seed, min_side, max_side, attempts
        self._scenes: set[Scene] = set()
        self._pixels: set[str] = set()

    def rng(self, *names: str | int) -> random.Random:
        """Random numbers that depend on the recipe's seed and these names alone."""
        return random.Random("/".join(map(str, ("draw", self.seed, *names))))

    def draw(self, split: str, number: int, pairs: Sequence[tuple[str, str]]) -> Iterator[tuple[Scene, Image.Image]]:
        """`number` new pictures of these colour-shape pairs. Raises RecipeError when there are no more different ones."""
        for i in range(number):
            rng = self.rng(split, i)
            for _ in range(self.attempts):
                scene = random_scene(rng.choice(pairs), self.min_side, self.max_side, rng)
                image = picture(scene)
                digest = pixel_digest(image)
                if scene not in self._scenes and digest not in self._pixels:
                    break
            else:
                raise RecipeError(f"draw: no {number} different {split} pictures between {self.min_side} and {self.max_side} pixels: raise draw.max_side")
            self._scenes.add(scene)
            self._pixels.add(digest)
            yield scene, image


def encode(image: Image.Image, form: str) -> bytes:
    """The file of a picture: PNG, or JPEG with the least loss."""
    buffer = io.BytesIO()
    image.save(buffer, form, **({"quality": 95, "subsampling": 0} if form == "JPEG" else {}))
    return buffer.getvalue()


def _row(row_id: str, turns: list[tuple[str, str]], image: str | None) -> dict[str, Any]:
    """A LLaVA row; the first question carries the picture's mark."""
    conversations = [{"from": who, "value": text} for question, answer in turns for who, text in (("human", question), ("gpt", answer))]
    if image is None:
        return {"id": row_id, "conversations": conversations}
    conversations[0]["value"] = f"<image>\n{conversations[0]['value']}"
    return {"id": row_id, "image": image, "conversations": conversations}


def _write_rows(path: Path, rows: list[dict[str, Any]], rng: random.Random) -> None:
    rng.shuffle(rows)
    path.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n", encoding="utf-8")


def _questions(scene: Scene, rng: random.Random) -> list[tuple[str, str]]:
    """One turn per kind of question, in random order and wording."""
    return [(rng.choice(QUESTIONS[kind]), scene.answer(kind)) for kind in rng.sample(list(QUESTIONS), len(QUESTIONS))]


def _scrambled(caption: str, rng: random.Random) -> str:
    words = caption.split()
    while " ".join(words) == caption:
        rng.shuffle(words)
    return " ".join(words)


def _write_benchmark(path: Path, drawn: list[tuple[Scene, Image.Image]], rng: random.Random) -> None:
    """Every kind of question for every picture."""
    with path.open("w", encoding="utf-8", newline="") as f:
        writer = csv.writer(f, delimiter="\t", lineterminator="\n")
        writer.writerow(COLUMNS)
        asked = [(scene, base64.b64encode(encode(image, "PNG")).decode(), kind) for scene, image in drawn for kind in QUESTIONS]
        for index, (scene, image, kind) in enumerate(asked):
            writer.writerow([index, image, rng.choice(QUESTIONS[kind]), scene.answer(kind), kind, "en"])


def _write_captions(data: Path, config: Draw, studio: Studio, drawn: list[tuple[Scene, str]], seen: list[tuple[str, str]]) -> None:
    """One caption a picture, and the defects of captions."""
    rng, noise = studio.rng("captions"), config.noise
    rows = [_row(f"caption-{i:06d}", [(rng.choice(DESCRIBE), scene.caption)], name) for i, (scene, name) in enumerate(drawn)]
    repeated = [{**row, "id": f"duplicate-{i:06d}"} for i, row in enumerate(rng.choices(rows, k=noise.duplicates))]
    for i, (scene, name) in enumerate(rng.choices(drawn, k=noise.scrambled)):
        rows.append(_row(f"scrambled-{i:06d}", [(rng.choice(DESCRIBE), _scrambled(scene.caption, rng))], name))
    for i, (scene, _) in enumerate(rng.choices(drawn, k=noise.missing)):
        rows.append(_row(f"missing-{i:06d}", [(rng.choice(DESCRIBE), scene.caption)], f"missing-{i:06d}.png"))
    for i, (scene, image) in enumerate(studio.draw("truncated", noise.truncated, seen)):
        whole = encode(image, "JPEG")
        Path(data, "images", f"truncated-{i:06d}.jpg").write_bytes(whole[: len(whole) * 4 // 5])
        rows.append(_row(f"truncated-{i:06d}", [(rng.choice(DESCRIBE), scene.caption)], f"truncated-{i:06d}.jpg"))
    _write_rows(data / "captions.json", rows + repeated, rng)


def _write_questions(data: Path, config: Draw, studio: Studio, drawn: list[tuple[Scene, str]]) -> None:
    """One row of three questions a picture, and rows without an answer: an empty one, or none at all."""
    rng = studio.rng("questions")
    rows = [_row(f"question-{i:06d}", _questions(scene, rng), name) for i, (scene, name) in enumerate(drawn)]
    for i, (scene, name) in enumerate(rng.choices(drawn, k=config.noise.unanswered)):
        row = _row(f"unanswered-{i:06d}", [(_questions(scene, rng)[0][0], "")], name)
        rows.append(row if i % 2 else {**row, "conversations": row["conversations"][:1]})
    _write_rows(data / "questions.json", rows, rng)


def _write_text(data: Path, config: Draw, studio: Studio, seen: list[tuple[str, str]]) -> None:
    """The scene in words, then questions about it: what a language model must know before it meets pictures."""
    rng = studio.rng("text")
    rows = []
    for i in range(config.train):
        scene = random_scene(rng.choice(seen), config.min_side, config.max_side, rng)
        turns = [*_questions(scene, rng), (rng.choice(DESCRIBE), scene.caption)]
        rng.shuffle(turns)
        turns[0] = (f"{scene.caption}\n{turns[0][0]}", turns[0][1])
        rows.append(_row(f"text-{i:06d}", turns, None))
    _write_rows(data / "text.json", rows, rng)


def run(step: Step) -> None:
    """Writes the drawn corpus. The benchmarks are drawn first: they stay the same when the training part grows."""
    config = step.config("draw", Draw)
    withheld = sorted(set(config.withheld))
    seen = [pair for pair in PAIRS if pair not in withheld]
    studio = Studio(step.seed, config.min_side, config.max_side)
    num_withheld = max(12, config.report // 4) if withheld else 0
    for split, number, pairs in (("report", config.report, seen), ("selection", config.selection, seen), ("withheld", num_withheld, withheld)):
        _write_benchmark(step.data / f"{split}.tsv", list(studio.draw(split, number, pairs)), studio.rng(split, "questions"))

    (step.data / "images").mkdir()
    drawn = []
    for i, (scene, image) in enumerate(track(studio.draw("train", config.train, seen), "draw", config.train)):
        name = f"{i:06d}.png"
        Path(step.data, "images", name).write_bytes(encode(image, "PNG"))
        drawn.append((scene, name))
    _write_captions(step.data, config, studio, drawn, seen)
    _write_questions(step.data, config, studio, drawn)
    _write_text(step.data, config, studio, seen)
    logger.info("drew %d training pictures and %d, %d, %d to report, to select and withheld", len(drawn), config.report, config.selection, num_withheld)
