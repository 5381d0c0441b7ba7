"""Annotators that write: whatever is asked becomes a prompt, whatever comes back is read strictly. No answer is asked for twice.

A reply that cannot be used is shown to the model once more with a word on what is wrong; then it is given up.
"""

import hashlib
import json
import logging
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

from pydantic import BaseModel

from components.curation import replies
from components.curation.annotator import Annotator, Question, Request
from components.curation.answers import Answers
from components.curation.prompts import languages
from components.data.language import language_of

logger = logging.getLogger(__name__)

F = TypeVar("F", bound=BaseModel)
T = TypeVar("T")

CHOICE_TOKENS = 16
"""Longest reply to a question with options, tokens."""


class Reply(NamedTuple):
    """What a model said; `whole`: it came to an end by itself."""

    text: str
    whole: bool


class Ask(NamedTuple):
    """What is asked as a model sees it. `schema`: JSON schema of the reply, or empty. `turns`: an earlier reply and what was wrong with it."""

    request: Request
    max_tokens: int
    how: str = ""
    schema: str = ""
    turns: tuple[str, ...] = ()

    def key(self, model: str) -> str:
        """Of its answer: model, wording, and all that is sent."""
        request = self.request
        images = [hashlib.sha256(image).hexdigest() for image in request.images]
        parts = [model, request.prompt, request.system, request.text, images, self.max_tokens, self.how, self.schema, self.turns]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def messages(self) -> list[tuple[str, str]]:
        """(role, text) from the system's to the last one; the pictures belong to the first one of the user."""
        first = [("system", self.request.system)] if self.request.system else []
        said = [("user" if i % 2 else "assistant", turn) for i, turn in enumerate(self.turns)]
        return [*first, ("user", "\n".join(filter(None, [self.request.text, self.how]))), *said]


class WritingAnnotator(Annotator):
    """A model that is asked in words."""

    def __init__(self, name: str, answers: Answers | None):
        """`answers`: where replies are kept; None: they are not."""
        super().__init__(name)
        self._answers = answers
        self._how = {kind: languages(f"writing.{kind}") for kind in ("choice", "form", "text", "again")}

    @abstractmethod
    def _generate(self, asks: Mapping[str, Ask]) -> Iterator[tuple[str, Reply | None]]:
        """(key, reply) in any order; None for a question that this model cannot answer. Raises TransientError or SetupError when it answers nothing at all."""

    def choose_all(self, questions: Sequence[Question]) -> list[int | None]:
        asks = []
        for question in questions:
            language = "zh" if language_of(question.text) == "zh" else "en"
            options = "\n".join(f"{letter}. {option}" for letter, option in zip(replies.LETTERS, question.options, strict=False))
            how = self._how["choice"][language]
            asks.append(Ask(Request(f"{question.text}\n{options}", how.id, language=language), CHOICE_TOKENS, how.text))
        return self._read(asks, lambda i, reply: replies.choice(reply.text, questions[i].options))

    def write_all(self, requests: Sequence[Request], max_tokens: int, fine: Callable[[Request, str], bool] = lambda *_: True) -> list[str | None]:
        def read(i: int, reply: Reply) -> str | None:
            said = replies.text(reply.text)
            return said if reply.whole and said and fine(requests[i], said) else None

        return self._read([Ask(request, max_tokens) for request in requests], read)

    def fill_all(self, requests: Sequence[Request], form: type[F], max_tokens: int) -> list[F | None]:
        schema = json.dumps(form.model_json_schema(), ensure_ascii=False)
        asks = [Ask(r, max_tokens, self._how["form"][r.language].render(schema=schema), schema) for r in requests]
        return self._read(asks, lambda i, reply: replies.form(reply.text, form, requests[i].text))

    def _read(self, asks: Sequence[Ask], read: Callable[[int, Reply], T | None]) -> list[T | None]:
        """What the replies say; those that cannot be used are asked for once more."""
        given = self._replies(asks)
        said = [None if reply is None else read(i, reply) for i, reply in enumerate(given)]
        again = {i: self._once_more(asks[i], reply) for i, reply in enumerate(given) if reply is not None and said[i] is None}
        for i, reply in zip(again, self._replies(list(again.values())), strict=True):
            said[i] = None if reply is None else read(i, reply)
        if lost := [i for i, answer in enumerate(said) if answer is None]:
            first = given[lost[0]]
            logger.warning("%s: %d of %d answers cannot be used, such as %r", self.name, len(lost), len(asks), first.text[:200] if first else None)
        return said

    def _once_more(self, ask: Ask, reply: Reply) -> Ask:
        how = ask.how or self._how["text"][ask.request.language].text
        return ask._replace(turns=(reply.text, self._how["again"][ask.request.language].render(how=how)))

    def _replies(self, asks: Sequence[Ask]) -> list[Reply | None]:
        """From disk or from the model; equal questions are asked once."""
        keys = [ask.key(self.name) for ask in asks]
        found: dict[str, Reply | None] = {}
        for key in dict.fromkeys(keys):
            if self._answers and (kept := self._answers.get(key)) is not None:
                found[key] = Reply(*json.loads(kept))
        for key, reply in self._generate({k: ask for k, ask in zip(keys, asks, strict=True) if k not in found}):
            found[key] = reply
            if reply is not None and self._answers:
                self._answers.put(key, json.dumps(reply))
        return [found[key] for key in keys]
