"""Rows of the drawn corpus, with their deliberate defects: captions and questions about pictures, and text.

A row has no id until `numbered` shuffles all of them and counts, so that an id says nothing.
"""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from components.data.defects import misspelt, near_copy, scrambled, truncated, ungrammatical, wrong_language
from components.data.judge_prompts import GRAMMAR, NO, YES
from components.data.shapes import Scene, picture
from components.data.wording import KINDS, LANGUAGES, answer, caption, description, question
from components.recipe.draw import Noise

Turn = tuple[str, str | None]
"""A question and its answer; None where the turn of the answer is missing."""

Save = Callable[[bytes, str], str]
"""Writes the bytes of a picture with a suffix, and returns the name of the file."""


@dataclass(eq=False)
class Row:
    """A LLaVA row before it has an id. `noise` is the label of its defect, `of` the row that it repeats."""

    turns: Sequence[Turn]
    language: str
    image: str | None = None
    noise: str | None = None
    of: "Row | None" = None

    def json(self, row_id: str) -> dict[str, Any]:
        """The row as LLaVA JSON; the first question carries the picture's mark."""
        turns = [{"from": who, "value": text} for turn in self.turns for who, text in zip(("human", "gpt"), turn, strict=True) if text is not None]
        if self.image is None:
            return {"id": row_id, "language": self.language, "conversations": turns}
        turns[0]["value"] = f"<image>\n{turns[0]['value']}"
        return {"id": row_id, "image": self.image, "language": self.language, "conversations": turns}


@dataclass(frozen=True)
class Drawn:
    """A training picture: its scene and the name of its file."""

    scene: Scene
    name: str


def numbered(source: str, rows: Sequence[Row], rng: random.Random) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows as LLaVA JSON in random order, a copy always behind its original, and the labels of those with a defect.

    Texts are drawn with repetition: one that says what an earlier one says is a duplicate too.
    """
    order = rng.sample(rows, len(rows))
    place = {row: i for i, row in enumerate(order)}
    for copy in rows:
        if copy.of is not None and place[copy] < place[copy.of]:
            place[copy], place[copy.of] = place[copy.of], place[copy]
    order.sort(key=place.__getitem__)
    ids = {row: f"{i:06d}" for i, row in enumerate(order)}
    labels = []
    said: dict[str, str] = {}
    for row in order:
        first = said.setdefault(json.dumps(row.json("")), ids[row])
        if row.noise or first != ids[row]:
            original = ids[row.of] if row.of else (None if row.noise else first)
            labels.append({"source": source, "id": ids[row], "noise": row.noise or "duplicate", "of": original})
    return [row.json(ids[row]) for row in order], labels


def caption_rows(drawn: Sequence[Drawn], extra: Sequence[Scene], noise: Noise, save: Save, rng: random.Random) -> list[Row]:
    """One caption a picture, languages by turns; some captions are bad, some rows come twice, some have no usable picture.

    `extra`: as many further scenes as `noise.truncated` asks for.
    """
    bad = ["scrambled"] * noise.scrambled + ["wrong_language"] * noise.wrong_language
    rows = []
    for number, one in zip(count(), drawn):
        language = LANGUAGES[number % 2]
        ask, text = description(one.scene, language, rng)
        kind = bad[number] if number < len(bad) else None
        if kind == "scrambled":
            text = scrambled(text, language, rng)
        elif kind == "wrong_language":
            text = wrong_language(one.scene, language, rng)
        rows.append(Row([(ask, text)], language, one.name, kind))
    originals = rng.sample(range(len(bad), len(rows)), noise.duplicates + noise.near_duplicates)
    for i, number in enumerate(originals):
        row = rows[number]
        if i < noise.duplicates:
            rows.append(Row(row.turns, row.language, row.image, "duplicate", row))
        else:
            name = save(near_copy(picture(drawn[number].scene), rng), ".jpg")
            rows.append(Row(row.turns, row.language, name, "near_duplicate", row))
    for scene in extra:
        language, name = rng.choice(LANGUAGES), save(truncated(picture(scene)), ".jpg")
        rows.append(Row([description(scene, language, rng)], language, name, "truncated"))
    for one in rng.choices(drawn, k=noise.missing):
        language = rng.choice(LANGUAGES)
        rows.append(Row([description(one.scene, language, rng)], language, f"{rng.getrandbits(64):016x}.png", "missing"))
    return rows


def question_rows(drawn: Sequence[Drawn], noise: Noise, rng: random.Random) -> list[Row]:
    """Every kind of question once a picture, answered in one word; half of the rows end with a description.

    Some descriptions are ungrammatical, some rows tell their answers in words, and some further ones have no answer.
    """
    bad = ["ungrammatical"] * noise.ungrammatical + ["answerable"] * noise.answerable
    rows = []
    for number, one in zip(count(), drawn):
        language = LANGUAGES[number % 2]
        turns = _questions(one.scene, language, rng)
        kind = bad[number] if number < len(bad) else None
        ask, text = description(one.scene, language, rng)
        if kind == "answerable":
            turns = [(f"{caption(one.scene, language, rng)}\n{q}", a) for q, a in turns]
        elif kind == "ungrammatical":
            turns.append((ask, ungrammatical(text, language, rng)))
        elif rng.random() < 0.5:
            turns.append((ask, text))
        rows.append(Row(turns, language, one.name, kind))
    for i, one in enumerate(rng.choices(drawn, k=noise.unanswered)):
        language = rng.choice(LANGUAGES)
        rows.append(Row([(question(rng.choice(KINDS), language, rng), "" if i % 2 else None)], language, one.name, "unanswered"))
    return rows


def text_rows(scenes: Sequence[Scene], rng: random.Random) -> list[Row]:
    """What a language model must know before it meets pictures and judges texts: three rows of four tell a scene in words, the others judge."""
    rows = []
    for i, scene in enumerate(scenes):
        language = LANGUAGES[i % 2]
        rows.append(_scene_in_words(scene, language, rng) if i % 8 < 6 else _judged([scene, *rng.choices(scenes, k=3)], language, rng))
    return rows


def _questions(scene: Scene, language: str, rng: random.Random) -> list[Turn]:
    """One turn per kind of question, in random order and wording."""
    return [(question(kind, language, rng), answer(scene, kind, language)) for kind in rng.sample(KINDS, len(KINDS))]


def _scene_in_words(scene: Scene, language: str, rng: random.Random) -> Row:
    """A scene is told, then asked about."""
    turns = _questions(scene, language, rng)
    if rng.random() < 0.25:
        turns.append(description(scene, language, rng))
    turns[0] = (f"{caption(scene, language, rng)}\n{turns[0][0]}", turns[0][1])
    return Row(turns, language)


def _judged(scenes: Sequence[Scene], language: str, rng: random.Random) -> Row:
    """Whole and broken captions and answers, about as many of each, and whether they are well written."""
    turns: list[Turn] = []
    for scene in scenes:
        sentence = rng.random() < 0.8
        text = caption(scene, language, rng) if sentence else answer(scene, rng.choice(KINDS), language)
        good = rng.random() < 0.5
        if not good:
            text = ungrammatical(text, language, rng) if sentence else misspelt(text, language, rng)
        turns.append((GRAMMAR[language].format(text=text), (YES if good else NO)[language]))
    return Row(turns, language)
