"""A judge in this process: the language model of a training stage, by the likelihood of each option as the answer."""

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from components.curation.judge import Judge, Question
from components.curation.scorer import Scorer


class LocalJudge(Judge):
    """Draws an option in proportion to its probability (temperature 1), so that several trials show how sure the model is.

    The order of the options makes no difference. A question is not answered when no option fits into the model's context.
    """

    def __init__(self, folder: Path):
        """Raises DataError when the folder holds no whole model."""
        self._scorer = Scorer(folder)
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
