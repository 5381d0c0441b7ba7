"""From what is in the files to the numbers of a recipe. Rules of thumb for one CPU core a step; where they come from stands beside them."""

import math
from dataclasses import dataclass

from components.errors import DataError
from components.models.build import build_processor
from components.models.processor import Processor
from components.models.tokenizer import SMALLEST_VOCAB, train_tokenizer
from components.recipe.model import Connector, Llm, Model, Vision
from components.survey.look import Files, Rows

PATCH, MERGE = 8, 2
SAMPLES = 32
"""Samples of a training step."""

SELECTION_ROWS, REPORT_ROWS = 120, 200
"""Rows that are held out, if there are enough, to choose by and to report on."""


@dataclass(frozen=True)
class Sizes:
    """The numbers that depend on the data. Lengths in tokens, areas in pixels, shares in percent."""

    vocab: int
    max_pixels: int
    longest_row: int
    longest_answer: int
    max_tokens: int
    max_new_tokens: int
    selection: int
    report: int
    vision_steps: int
    describe_steps: int
    instruct_steps: int
    copies: int
    """degrees"""
    minutes: float
    """of a run on two cores, roughly"""


def sizes(files: Files) -> Sizes:
    """The sizes of a recipe for these files. Raises DataError when no row has a picture."""
    train, captions, questions, sources = files.train, files.captions, files.questions, files.rows
    max_pixels = _max_pixels(sources)
    vocab = _vocab(sources)
    processor = _processor(sources, vocab, max_pixels)
    lengths = [_tokens(processor, messages, size) for source in sources for messages, size in source.conversations]
    answers = [len(processor.text_ids(text)) for source in sources for text in source.answers]
    answers += [len(processor.text_ids(q.answer)) for q in questions.questions] if questions else []
    asked = [len(processor.text_ids(q.question)) for q in questions.questions] if questions else []
    max_new_tokens = 4 * math.ceil(1.25 * (max(answers) + 1) / 4)
    longest = max([*lengths, *(n + max_pixels // (PATCH * MERGE) ** 2 + 16 + max_new_tokens for n in asked)])
    steps = _vision_steps(files)
    instruct = min(300, max(100, steps // 5))
    describe = 100 if captions else 0
    return Sizes(
        vocab=vocab,
        max_pixels=max_pixels,
        longest_row=max(lengths),
        longest_answer=max(answers),
        max_tokens=max(2048, 2 ** math.ceil(math.log2(longest))),
        max_new_tokens=max_new_tokens,
        selection=_percent(train.usable, SELECTION_ROWS, 5, 20),
        report=0 if questions else _percent(train.usable, REPORT_ROWS, 5, 25),
        vision_steps=steps,
        describe_steps=describe,
        instruct_steps=instruct,
        copies=max(1, min(15, math.ceil(20_000 / max(1, train.usable)))),
        minutes=_minutes(steps, describe, instruct, sum(lengths) / len(lengths)),
    )


def model(sizes: Sizes) -> Model:
    """The model section: a tower and a language model that one CPU core trains in minutes."""
    return Model(
        vision=Vision(depth=3, width=64, heads=4, patch=PATCH, init_std=0.08),
        connector=Connector(merge=MERGE),
        llm=Llm(hidden=64, layers=2, heads=4, kv_heads=2, ffn=192, vocab=sizes.vocab, tie_embeddings=True, init_std=0.05),
        min_pixels=1024,
        max_pixels=sizes.max_pixels,
        context=sizes.max_tokens,
    )


def _max_pixels(sources: list[Rows]) -> int:
    """Small pictures stay as they are up to 56 x 56; larger ones have more in them and get 64 x 64."""
    areas = sorted(width * height for source in sources for width, height in source.sizes)
    if not areas:
        raise DataError(f"{sources[0].path}: no row has a picture: name their files in `image`, and give --images")
    return 3136 if areas[len(areas) // 2] <= 128**2 else 4096


def _vocab(sources: list[Rows]) -> int:
    """Room for the bytes, and for the words of questions and answers as tokens of their own."""
    words = {word for source in sources for text in (*source.answers, *source.questions) for word in text.split()}
    letters = {c for source in sources for text in (*source.answers, *source.questions) for c in text if not c.isascii()}
    return min(4096, 8 * math.ceil((SMALLEST_VOCAB + 48 + 2 * len(words) + 3 * len(letters)) / 8))


def _processor(sources: list[Rows], vocab: int, max_pixels: int) -> Processor:
    tokenizer = train_tokenizer((text for source in sources for text in source.texts), vocab)
    settings = Model(
        vision=Vision(depth=1, width=64, heads=4, patch=PATCH),
        connector=Connector(merge=MERGE),
        llm=Llm(hidden=64, layers=1, heads=4, kv_heads=2, ffn=64, vocab=vocab),
        min_pixels=1024,
        max_pixels=max_pixels,
    )
    return build_processor(settings, tokenizer)


def _tokens(processor: Processor, messages: list[dict[str, str]], size: tuple[int, int] | None) -> int:
    """Length of a row in the chat template, its picture included."""
    return len(processor.encode(messages, [processor.num_image_tokens(*size)] if size else []).input_ids)


def _percent(rows: int, wanted: int, least: int, most: int) -> int:
    """The share of `rows` that makes about `wanted` rows, within bounds."""
    return min(most, max(1 if rows > 100 * wanted else least, round(100 * wanted / max(1, rows))))


def _vision_steps(files: Files) -> int:
    """How long the tower learns. Ten classes take 1000 steps (25 passes over 1400 varied pictures), sixty take three times as many.

    Measured with benchmarks/own_data.py. Free answers: a dozen passes over all rows.
    """
    train = files.train
    if train.classes:
        a_turn = train.classes * train.looked / train.turns  # a row that asks in two languages has half as many classes
        return min(4000, max(500, 10 * round(100 * (a_turn / 10) ** 0.6), 3 * train.usable // SAMPLES))
    return min(4000, max(800, 12 * sum(rows.usable for rows in files.rows) // SAMPLES))


def _minutes(vision: int, describe: int, instruct: int, tokens: float) -> float:
    """A step of 32 rows takes about 3.6 ms a token; candidates run two at a time; the chain around them takes a minute and a half."""
    return 1.5 + (vision + describe + 2 * instruct) * tokens * 0.0036 / 60
