"""JSONL whose pictures are base64 text, with captions as in the POINTS demo (`{"image": base64, "caption": text}`) or with conversations."""

from typing import Any

from components.data.formats.messages import Messages
from components.data.formats.reader import Picture
from components.data.formats.turns import text, unpacked


class Base64(Messages):
    """Everything is inside the row; no other file is looked at."""

    def picture(self, value: Any, where: str) -> Picture:
        return unpacked(text(value, where), where)
