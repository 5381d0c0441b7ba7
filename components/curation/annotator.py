"""The port through which curation asks a model: to choose, to write, to fill in a form. It is shown what a prompt says and pictures, nothing else of a row."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple, TypeVar

from pydantic import BaseModel

F = TypeVar("F", bound=BaseModel)


class Question(NamedTuple):
    """Something to choose. `seed` is what an annotator that draws its choice draws it with."""

    text: str
    options: tuple[str, ...]
    seed: int


class Request(NamedTuple):
    """Something to write. `prompt`: the ids of its wording. `images`: files as they are. `language`: in which the annotator is told how to reply."""

    text: str
    prompt: str
    system: str = ""
    images: tuple[bytes, ...] = ()
    language: str = "en"


class Annotator(ABC):
    """A model that answers. None stands for a reply that cannot be used, or none at all for this one question."""

    fills_forms: ClassVar[bool] = True
    """Whether it is to be trusted with forms; a small model of the recipe's own can only choose."""

    def __init__(self, name: str):
        """`name`: what records call it; it changes with the model."""
        self.name = name

    def choose(self, question: str, options: Sequence[str], seed: int) -> int | None:
        """Index of the chosen option."""
        return self.choose_all([Question(question, tuple(options), seed)])[0]

    @abstractmethod
    def choose_all(self, questions: Sequence[Question]) -> list[int | None]:
        """`choose` for many questions at once, in their order."""

    @abstractmethod
    def write_all(self, requests: Sequence[Request], max_tokens: int, fine: Callable[[Request, str], bool] = lambda *_: True) -> list[str | None]:
        """The texts asked for, of at most `max_tokens` tokens. One that is cut off, empty, or not `fine` cannot be used."""

    @abstractmethod
    def fill_all(self, requests: Sequence[Request], form: type[F], max_tokens: int) -> list[F | None]:
        """A filled-in `form` for every request, in at most `max_tokens` tokens."""


def seed_of(*names: str | int) -> int:
    """A seed that depends on these names alone."""
    return int.from_bytes(hashlib.sha256("\0".join(map(str, names)).encode()).digest()[:8])
