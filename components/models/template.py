"""How a conversation becomes text: POINTS1.5's chat template, and the plain picture-then-text template of caption pre-training.

Chat (released inference code; no system prompt, a newline after every picture):
`<|im_start|>user\\n{<|vision_start|>{<|image_pad|> x n}<|vision_end|>\\n}{text}<|im_end|>\\n<|im_start|>assistant\\n{answer}<|im_end|>\\n`
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from .errors import ModelError
from .tokenizer import IM_END, IM_START, VISION_END, VISION_START

MARK = "<image>"
"""Place of a picture in a user's content, as in LLaVA's files; one newline right behind it is part of the mark."""

Messages = Sequence[Mapping[str, Any]]
"""`role`: user or assistant. `content`: text with marks, or a list of parts in which None is a picture and text is never searched for marks."""

Template = Literal["chat", "plain"]


class Piece(NamedTuple):
    """`token`: the special token `text`; `image`: the pads of the next picture; `text`: text, never read as special tokens."""

    kind: Literal["token", "image", "text"]
    text: str = ""
    learned: bool = False


def parts(content: str | Sequence[str | None]) -> list[str | None]:
    """The content as parts: text, and None where a picture stands."""
    if not isinstance(content, str):
        return list(content)
    found: list[str | None] = []
    for number, text in enumerate(content.split(MARK)):
        found += [text] if number == 0 else [None, text.removeprefix("\n")]
    return [part for part in found if part != ""]


def num_images(messages: Messages) -> int:
    """Pictures that the user's turns have places for."""
    return sum(part is None for message in messages if message["role"] == "user" for part in parts(message["content"]))


def chat(messages: Messages, generation_prompt: bool = False) -> list[Piece]:
    """Pieces of the chat template; learned: answers and their `<|im_end|>`. With `generation_prompt` the last turn must be the user's.

    Raises ModelError for other roles than user and assistant, and where there is nothing to answer.
    """
    pieces: list[Piece] = []
    for message in messages:
        if message["role"] == "user":
            pieces += _user(parts(message["content"]))
        elif message["role"] == "assistant":
            pieces += [Piece("token", IM_START), Piece("text", "assistant\n"), Piece("text", _plain_text(message), True), Piece("token", IM_END, True)]
        else:
            raise ModelError(f"a message has the role {message['role']!r}: the template knows user and assistant.")
        pieces.append(Piece("text", "\n"))
    if generation_prompt:
        if not messages or messages[-1]["role"] != "user":
            raise ModelError("there is nothing to answer: the last message must be the user's.")
        pieces += [Piece("token", IM_START), Piece("text", "assistant\n")]
    return pieces


def plain(messages: Messages, num_pictures: int) -> list[Piece]:
    """Pictures, then the text of the answers and `<|im_end|>`, all text learned. Without pictures: the text of all turns, marks left out."""
    turns = [message for message in messages if not num_pictures or message["role"] == "assistant"]
    text = "\n".join(filter(None, (_plain_text(turn).strip() for turn in turns)))
    pictures = [Piece("token", VISION_START), Piece("image"), Piece("token", VISION_END)] * num_pictures
    return [*pictures, Piece("text", text, True), Piece("token", IM_END, True)]


def _user(content: list[str | None]) -> list[Piece]:
    """One user turn. Text between special tokens stays one piece, so it is tokenised as the rendered string would be."""
    pieces, text = [Piece("token", IM_START)], "user\n"
    for part in content:
        if part is None:
            if text:
                pieces.append(Piece("text", text))
            pieces += [Piece("token", VISION_START), Piece("image"), Piece("token", VISION_END)]
            text = "\n"
        else:
            text += part
    return [*pieces, Piece("text", text), Piece("token", IM_END)]


def _plain_text(message: Mapping[str, Any]) -> str:
    """A turn's text alone. Marks are marks in user turns only."""
    content = message["content"]
    if message["role"] == "assistant" and isinstance(content, str):
        return content
    return "".join(part for part in parts(content) if part)
