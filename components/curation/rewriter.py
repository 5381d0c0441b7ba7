"""What every rewrite is: rows in, what becomes of each one out. It never looks at another row, so it can be done in any portions."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Generic, NamedTuple, TypeVar

from components.curation.annotator import Annotator
from components.curation.annotators import open_annotator
from components.curation.prompts import Prompt, languages
from components.curation.row import Row
from components.data.canonical import IMAGE_MARK
from components.recipe.annotator import Annotator as Named
from components.recipe.base import Section
from components.step import Step

C = TypeVar("C", bound=Section)

Messages = list[dict[str, str]]


class Change(NamedTuple):
    """What becomes of a row. Without messages it passes as it is; `problem` says why an annotator's work cannot be used; `language`: the new one."""

    messages: Messages | None = None
    language: str | None = None
    problem: str = ""


PASSED = Change()
"""The row is none of those that this rewrite is for."""


class Rewriter(ABC, Generic[C]):
    """One rewrite with its section of the recipe. `code` changes whenever equal answers could lead to other rows."""

    kind: ClassVar[str]
    code: ClassVar[str]
    wordings: ClassVar[tuple[str, ...]]
    """Names of its prompts."""

    def __init__(self, config: C, step: Step):
        self.config, self.step = config, step
        self.prompt: dict[str, dict[str, Prompt]] = {name: languages(f"{self.kind}.{name}" if name else self.kind) for name in self.wordings}
        self.prompts = [prompt.id for prompts in self.prompt.values() for prompt in prompts.values()]
        self.version = "-".join([self.code, *self.prompts])
        self.annotators: list[str] = []

    def open(self, named: Named) -> Annotator:
        """An annotator of the section; its name is written into the summary."""
        annotator = open_annotator(named, self.step)
        self.annotators.append(annotator.name)
        return annotator

    @abstractmethod
    def rewrite(self, rows: Sequence[Row]) -> list[Change]:
        """What becomes of each row."""


def one_turn(row: Row) -> tuple[str, str] | None:
    """Question (without marks of pictures) and answer of a row of one turn about pictures; None of any other row."""
    if len(row.messages) != 2 or not row.images:
        return None
    question, answer = (m["content"].replace(IMAGE_MARK, "").strip() for m in row.messages)
    return question, answer


def turn(row: Row, question: str, answer: str) -> Messages:
    """One turn about the row's pictures, their marks first."""
    marks = f"{IMAGE_MARK}\n" * len(row.images)
    return [{"role": "user", "content": f"{marks}{question}"}, {"role": "assistant", "content": answer}]
