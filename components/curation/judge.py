"""The port through which filters ask a language model: multiple-choice questions about the text of a row, nothing else of it."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple


class Question(NamedTuple):
    """One thing to ask. `seed` is what a judge that draws its choice draws it with."""

    text: str
    options: tuple[str, ...]
    seed: int


class Judge(ABC):
    """A language model that chooses."""

    def choose(self, question: str, options: Sequence[str], seed: int) -> int | None:
        """Index of the chosen option; None when the judge gave no answer that could be read."""
        return self.choose_all([Question(question, tuple(options), seed)])[0]

    @abstractmethod
    def choose_all(self, questions: Sequence[Question]) -> list[int | None]:
        """`choose` for many questions at once, in their order."""


def seed_of(*names: str | int) -> int:
    """A seed that depends on these names alone."""
    return int.from_bytes(hashlib.sha256("\0".join(map(str, names)).encode()).digest()[:8])
