"""Conversations: LLaVA's and ShareGPT's `from` and `value`, OpenAI's `role` and `content`, pairs of `user` and `assistant`."""

import base64
import binascii
from collections.abc import Iterator
from typing import Any

from components.data.canonical import IMAGE_MARK
from components.data.formats.reader import MAX_PICTURE_BYTES, Embedded, Picture
from components.data.quarantine import RowError, short

ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}


def text(value: Any, where: str) -> str:
    """The value, which must be a text that can be written as UTF-8. Raises RowError."""
    if not isinstance(value, str):
        raise RowError("wrong_type", f"{where}: expected a text, found {short(value)}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RowError("bad_text", f"{where}: characters that are not Unicode text in {short(value)}") from error
    return value


def unpacked(value: str, where: str) -> Embedded:
    """The picture in a base64 text, with or without `data:...;base64,` before it. Raises RowError."""
    head, comma, body = value.partition(",") if value.startswith("data:") else ("", "", value)
    if len(body) > MAX_PICTURE_BYTES * 2:
        raise RowError("image_too_large", f"{where}: {len(body)} characters of base64 are more than {MAX_PICTURE_BYTES} bytes")
    try:
        if value.startswith("data:") and not (comma and head.endswith(";base64")):
            raise ValueError("a data: address without `;base64,`")
        return Embedded(base64.b64decode("".join(body.split()), validate=True))
    except (binascii.Error, ValueError) as error:
        raise RowError("image_base64", f"{where}: not base64 ({error}): {short(value)}") from error


def path(value: Any, where: str) -> Picture:
    """A picture that is named by its path, or written out as a `data:` address. Raises RowError."""
    name = text(value, where)
    if name.startswith("data:"):
        return unpacked(name, where)
    if name.startswith(("http://", "https://")):
        raise RowError("image_path", f"{where}: {short(name)}: nothing is fetched from the web: download the picture and name its file")
    return name.removeprefix("file://")


def conversation(turns: Any, where: str) -> tuple[list[dict[str, str]], list[Picture]]:
    """Messages of user and assistant by turns, and the pictures that stand among their words. Raises RowError.

    What the system says first is put before the first question. Text stays as it is, whatever it looks like: the tokenizer's side sees to
    it that no text is read as a control token.
    """
    if not isinstance(turns, list):
        raise RowError("wrong_type", f"{where}: expected a list of turns, found {short(turns)}")
    messages: list[dict[str, str]] = []
    pictures: list[Picture] = []
    system = ""
    for place, said_by, content in _turns(turns, where):
        role = ROLES.get(text(said_by, f"{place[0]}"))
        if role is None:
            raise RowError("unknown_role", f"{place[0]}: {short(said_by)}: known: {', '.join(ROLES)}")
        words, shown = _content(content, place[1])
        if role == "system" and not messages:
            system += words + "\n" if words.strip() else ""
            continue
        if role != ("user", "assistant")[len(messages) % 2]:
            raise RowError("turn_order", f"{place[0]}: {said_by}: turns must go human, gpt, human, gpt, ..., or user, assistant, ...")
        if role == "assistant" and (shown or not words.strip()):
            raise RowError("image_marks" if shown else "no_answer", f"{place[1]}: {'a picture in an answer' if shown else 'the answer is empty'}")
        pictures += shown
        messages.append({"role": role, "content": words if messages else system + words})
    if not messages or messages[-1]["role"] == "user":
        raise RowError("no_answer", f"{where}: {'the last question has no answer' if messages else 'no turns'}")
    return messages, pictures


def _turns(turns: list[Any], where: str) -> Iterator[tuple[tuple[str, str], Any, Any]]:
    """((where the speaker stands, where the words stand), speaker, words) of every turn."""
    for i, turn in enumerate(turns):
        here = f"{where}[{i}]"
        if not isinstance(turn, dict):
            raise RowError("wrong_type", f"{here}: expected a turn with `from` and `value`, or `role` and `content`, found {short(turn)}")
        if "user" in turn and "assistant" in turn:
            yield (here, f"{here}.user"), "user", turn["user"]
            yield (here, f"{here}.assistant"), "assistant", turn["assistant"]
            continue
        speaker = "role" if "role" in turn and "from" not in turn else "from"
        words = "content" if "content" in turn and "value" not in turn else "value"
        yield (f"{here}.{speaker}", f"{here}.{words}"), turn.get(speaker), turn.get(words)


def _content(content: Any, where: str) -> tuple[str, list[Picture]]:
    """The words of a turn, and its pictures: OpenAI's list of parts has both in their order; a picture leaves a mark in the words."""
    if not isinstance(content, list):
        return text(content, where), []
    words, pictures = "", []
    for i, part in enumerate(content):
        here = f"{where}[{i}]"
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text":
            words += text(part.get("text"), f"{here}.text")
        elif kind == "image_url":
            address = part.get("image_url")
            pictures.append(path(address.get("url") if isinstance(address, dict) else address, f"{here}.image_url"))
            words += f"{IMAGE_MARK}\n"
        elif kind == "image":
            if part.get("image") is not None:
                pictures.append(path(part["image"], f"{here}.image"))
            words += f"{IMAGE_MARK}\n"  # without a path of its own: the row's next picture
        else:
            raise RowError("wrong_type", f"{here}: expected a part of type text, image_url or image, found {short(part)}")
    return (words.removesuffix("\n") if words.endswith(f"{IMAGE_MARK}\n") else words), pictures
