"""What a reply says, read strictly: the option that it names, the form that it fills in, the text that it is. Only the reply is read, never the request."""

import json
import re
import string
from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from components.curation.words import words

F = TypeVar("F", bound=BaseModel)

LETTERS = string.ascii_uppercase
STATED = re.compile(r"(?:^\W*|(?i:\b(?:answer|option|choice)\b(?:\W+is\b)?)\W*|答案\W*(?:是|为)?\W*|选\W*)([A-Z])(?=\W*$|\s*[.,:;)*\]、。：，])")
"""A letter that stands alone at the beginning of a reply, or behind words such as `the answer is`; not the article in `A cat`."""
ALONE = re.compile(r"(?<![A-Za-z'’])[A-Z](?![A-Za-z'’])")
THOUGHT = re.compile(r"^\s*<think>.*?</think>", re.DOTALL)
"""What reasoning models say to themselves first."""
FENCE = re.compile(r"^```\w*\n(.*)\n```$", re.DOTALL)
QUOTES = {'"': '"', "“": "”", "「": "」"}
MAX_OBJECTS = 64
"""Places in a reply where an object may begin that are looked at."""


def choice(reply: str, options: Sequence[str]) -> int | None:
    """Index of the option that a reply names by its letter or its text; None when it names none or more than one."""
    letters, said = LETTERS[: len(options)], words(reply)
    for letter, option in zip(letters, options, strict=True):
        if said and said in ([letter.casefold()], words(option), [letter.casefold(), *words(option)]):
            return letters.index(letter)
    stated = STATED.search(reply.strip())
    if stated and stated[1] in letters and set(ALONE.findall(reply)) & set(letters) == {stated[1]}:
        return letters.index(stated[1])
    return None


def form(reply: str, shape: type[F], request: str) -> F | None:
    """The form that a reply fills in; None when it fills in none, or several that differ.

    The whole reply may be the object, bare or fenced. In other words around it, an object that stands in the request too is a quotation and does not count.
    """
    text = _unfenced(THOUGHT.sub("", reply).strip())
    if whole := _filled(text, shape):
        return whole
    found = {f.model_dump_json(): f for part in _objects(text) if part not in request and (f := _filled(part, shape))}
    return next(iter(found.values())) if len(found) == 1 else None


def text(reply: str) -> str:
    """The text that a reply is: without thoughts, fences and quotation marks around all of it. May be empty."""
    said = _unfenced(THOUGHT.sub("", reply).strip())
    close = QUOTES.get(said[:1])
    if close and len(said) > 1 and said.endswith(close) and not any(mark in said[1:-1] for mark in (said[0], close)):
        said = said[1:-1]
    return said.strip()


def _unfenced(said: str) -> str:
    fence = FENCE.match(said)
    return fence[1].strip() if fence else said


def _filled(part: str, shape: type[F]) -> F | None:
    try:
        return shape.model_validate_json(part)
    except ValidationError:
        return None


def _objects(said: str) -> list[str]:
    """The JSON objects in a text that do not stand in one another."""
    decoder, found, end = json.JSONDecoder(), [], 0
    for start in [m.start() for m in re.finditer(r"\{", said)][:MAX_OBJECTS]:
        if start >= end:
            end = _end(decoder, said, start)
            found += [said[start:end]] if end > start else []
    return found


def _end(decoder: Any, said: str, start: int) -> int:
    try:
        return decoder.raw_decode(said, start)[1]
    except (ValueError, RecursionError):
        return start
