"""Answers of model directories to benchmark questions, by free greedy generation."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from PIL.Image import Image

from components.data.benchmark import Question
from components.data.images import ImageError, decode
from components.errors import DataError, RecipeError
from components.models.checkpoint import load_model
from components.models.errors import ModelError
from components.models.generation import answer
from components.profile import step_profile
from components.progress import track

MAX_PIXELS = 50_000_000
"""Larger benchmark pictures are refused before they are decoded, pixels."""
BATCHES_AT_ONCE = 8
"""Batches whose pictures are in memory together; `answer` sorts within them by length, so that little is padded."""

K = TypeVar("K")
Bounds = Mapping[str, int | None]


def predict(
    models: Mapping[K, Path], benchmarks: Mapping[str, list[Question]], max_new_tokens: int, batch: int, bounds: Mapping[str, Bounds] | None = None
) -> dict[tuple[K, str], list[str]]:
    """(model, benchmark) -> answers in the order of the questions. One model is in memory at a time.

    `max_new_tokens`: longest answer, tokens; `batch`: questions answered together; `bounds`: of a benchmark's
    pictures, in the place of the model's own (see `visual_plan.within`). CPU threads are the runtime profile's, because
    another number changes the last bits. Raises DataError for a damaged picture (names file and row) or model directory.
    """
    torch.set_num_threads(step_profile().threads)
    size = batch * BATCHES_AT_ONCE
    work = [(key, name, start) for key in models for name, questions in benchmarks.items() for start in range(0, len(questions), size)]
    answers: dict[tuple[K, str], list[str]] = {(key, name): [] for key in models for name in benchmarks}
    loaded = model = processor = None
    for key, name, start in track(work, "answers", len(work)):
        if loaded != (key,):
            model = processor = None  # the memory of the model before, before the next one is read
            model, processor = _load(models[key])
            loaded = (key,)
        questions = benchmarks[name][start : start + size]
        answers[key, name] += _answer(model, _bounded(processor, name, (bounds or {}).get(name, {})), questions, max_new_tokens=max_new_tokens, batch=batch)
    return answers


def _bounded(processor: Any, name: str, bounds: Bounds) -> Any:
    try:
        return processor.within(**bounds)
    except ModelError as error:
        raise RecipeError(f"evaluate.benchmarks.{name}: {error}") from error


def _load(folder: Path) -> tuple[Any, Any]:
    try:
        return load_model(folder)
    except ModelError as error:
        raise DataError(f"{str(error).rstrip('.')}: run the step that writes {folder} again") from error


def _answer(model: Any, processor: Any, questions: list[Question], **lengths: int) -> list[str]:
    pictures = _pictures(processor, questions)
    try:
        return answer(model, processor, pictures, [q.question for q in questions], **lengths)
    except ModelError:
        for q, picture in zip(questions, pictures, strict=True):  # one by one, to name the row
            try:
                answer(model, processor, [picture], [q.question], **lengths)
            except ModelError as error:
                raise DataError(f"{q.where}: {str(error).removeprefix('question 0: ')}") from error
        raise


def _pictures(processor: Any, questions: list[Question]) -> list[Image | None]:
    """The pictures, no larger than the model sees them: photographs of a whole batch would not fit into memory."""
    decoded: dict[bytes, Image] = {}
    for q in questions:
        if q.image is not None and q.image not in decoded:
            try:
                decoded[q.image] = processor.resize(decode(q.image, MAX_PIXELS))
            except (ImageError, ModelError) as error:
                raise DataError(f"{q.where}: the image is of no use ({error}): replace it or remove the row") from error
    return [None if q.image is None else decoded[q.image] for q in questions]
