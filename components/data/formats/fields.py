"""A row of named fields, whatever file it came from: which field is the picture, which the text."""

from collections.abc import Callable
from typing import Any

from components.data.canonical import IMAGE_MARK
from components.data.formats.reader import Draft, Picture
from components.data.formats.turns import conversation, text
from components.data.quarantine import RowError, short
from components.recipe.data import Columns

USUAL = {
    "id": ("id",),
    "image": ("image", "images", "jpg", "jpeg", "png", "webp", "img"),
    "messages": ("messages", "conversations", "conversation", "texts"),
    "question": ("question",),
    "answer": ("answer",),
    "caption": ("caption", "text", "txt"),
    "language": ("language",),
    "license": ("license",),
}
"""What a field is for -> the names that are tried, in this order, where the recipe names none."""

TEXTS = ("messages", "question", "caption")
OTHER_MEDIA = ("video", "videos", "audio", "audios")
NAMED = 8
"""Fields that a message lists."""


def names(columns: Columns, role: str) -> tuple[str, ...]:
    """The names that a field may have."""
    own = getattr(columns, role)
    return (own,) if own else USUAL[role]


def field(row: dict[str, Any], columns: Columns, role: str) -> tuple[str, Any]:
    """(name, value) of the first field of this role that has one; (the first name, None) when none has."""
    known = names(columns, role)
    return next(((n, row[n]) for n in known if row.get(n) is not None), (known[0], None))


def row_id(row: Any, columns: Columns) -> str | None:
    """The id that a row brings, as text; None when it has none or its id is no text or integer."""
    value = field(row, columns, "id")[1] if isinstance(row, dict) else None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) and value else None


def draft(row: Any, columns: Columns, picture: Callable[[Any, str], Picture], *, exact: bool = False) -> Draft:
    """Checks the fields of a row. `picture` makes one of a value and the name of its field. Raises RowError.

    A row is a conversation, else a question with its answer, else a caption. Pictures without a single mark in the text stand before it,
    unless the format is `exact`.
    """
    if not isinstance(row, dict):
        raise RowError("wrong_type", f"expected a row of named fields, found {short(row)}")
    name, given = field(row, columns, "id")
    if given is not None and (isinstance(given, bool) or not isinstance(given, str | int)):
        raise RowError("wrong_type", f"{name}: expected a text or an integer, found {short(given)}")
    if isinstance(given, str):
        text(given, name)
    if other := next((m for m in OTHER_MEDIA if row.get(m)), None):
        raise RowError("wrong_type", f"{other}: only pictures and text are read")
    name, given = field(row, columns, "image")
    images = [picture(value, name) for value in (given if isinstance(given, list) else [] if given is None else [given])]
    messages, shown = _messages(row, columns)
    if images and shown:
        raise RowError("image_marks", f"pictures both in {name} and among the words: leave one")
    images = images or shown
    own = {role: text(value, n) for role in ("language", "license") for n, value in [field(row, columns, role)] if value is not None}
    return Draft(images, marked(messages, len(images), exact=exact), row_id(row, columns), None, own.get("language"), own.get("license"))


def marked(messages: list[dict[str, str]], num_images: int, *, exact: bool = False) -> list[dict[str, str]]:
    """The messages, with a mark for each picture before the first question where there are none at all. Raises RowError when they do not match."""
    marks = sum(m["content"].count(IMAGE_MARK) for m in messages if m["role"] == "user")
    if any(IMAGE_MARK in m["content"] for m in messages if m["role"] == "assistant") or (marks != num_images and (marks or exact)):
        raise RowError("image_marks", f"{marks} {IMAGE_MARK} marks in the questions for {num_images} pictures, or a mark in an answer")
    if marks == num_images:
        return messages
    first = "\n".join([*[IMAGE_MARK] * num_images, *filter(None, [messages[0]["content"]])])
    return [{**messages[0], "content": first}, *messages[1:]]


def _messages(row: dict[str, Any], columns: Columns) -> tuple[list[dict[str, str]], list[Picture]]:
    """The text of the row, and pictures that stand in it."""
    chosen = [role for role in TEXTS if getattr(columns, role)] or TEXTS
    role, name, value = next(((r, n, v) for r in chosen for n, v in [field(row, columns, r)] if v is not None), ("", "", None))
    if role == "messages":
        return conversation(value, name)
    if role == "question":
        answer_name, answer = field(row, columns, "answer")
        return _pair(_words(value, name), _words(answer, answer_name), answer_name), []
    if role == "caption":
        return _pair("", _words(value, name), name), []
    wanted = " or ".join(n for r in chosen for n in names(columns, r))
    raise RowError("wrong_type", f"{wanted}: not in the row; it has {', '.join(map(short, list(row)[:NAMED])) or 'nothing'}")


def _words(value: Any, where: str) -> str:
    """A text, or a whole number as text: answers often are."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else text(value, where)


def _pair(question: str, answer: str, where: str) -> list[dict[str, str]]:
    if not answer.strip():
        raise RowError("no_answer", f"{where}: the text is empty")
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
