"""An annotator in this process: the language model of a training stage. It chooses by the likelihood of each option, and writes greedily."""

import io
import random
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from components.curation.annotator import Question
from components.curation.scorer import Scorer
from components.curation.writing import Ask, Reply, WritingAnnotator
from components.models.checkpoint import load_model
from components.models.errors import ModelError
from components.models.generation import answer

BATCH = 16
"""Texts that are written together."""


class StageAnnotator(WritingAnnotator):
    """Draws an option in proportion to its probability (temperature 1), so that several trials show how sure the model is.

    The order of the options makes no difference. A question is not answered when no option fits into the model's context.
    """

    fills_forms: ClassVar[bool] = False

    def __init__(self, folder: Path):
        """Raises DataError when the folder holds no whole model."""
        super().__init__(folder.parent.name, None)
        self._folder, self._scorer = folder, Scorer(folder)
        self._known: dict[tuple[str, str], float] = {}

    def choose_all(self, questions: Sequence[Question]) -> list[int | None]:
        """Raises DataError when the model gives no numbers."""
        pairs = list(dict.fromkeys((q.text, option) for q in questions for option in q.options if (q.text, option) not in self._known))
        asked = [[{"role": "user", "content": text}, {"role": "assistant", "content": option}] for text, option in pairs]
        self._known.update(zip(pairs, self._scorer.log_likelihoods(asked).tolist(), strict=True))
        return [self._draw(question) for question in questions]

    def _draw(self, question: Question) -> int | None:
        logs = np.array([self._known[question.text, option] for option in question.options])
        if np.isneginf(logs).all():
            return None
        shares = np.exp(logs - logs.max()).cumsum()
        return int(np.searchsorted(shares, random.Random(question.seed).random() * shares[-1], side="right"))

    @cached_property
    def _model(self) -> tuple[Any, Any]:
        return load_model(self._folder)

    def _generate(self, asks: Mapping[str, Ask]) -> Iterator[tuple[str, Reply | None]]:
        """Turn by turn in one question, of one picture at most; None for what does not fit."""
        for key, ask in asks.items():
            pictures = [Image.open(io.BytesIO(file)).convert("RGB") for file in ask.request.images]
            text = "\n".join(said for _, said in ask.messages())
            try:
                said = answer(*self._model, pictures or [None], [text], max_new_tokens=ask.max_tokens, batch=BATCH)
            except ModelError:
                yield key, None
            else:
                yield key, Reply(said[0], whole=True)
