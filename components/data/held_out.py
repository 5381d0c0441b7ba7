"""Which rows are held out of training: a pure function of the row's own content, so that it stays where it is when others come."""

import hashlib
from typing import Any, Literal

from components.recipe.held_out import HeldOut

Split = Literal["train", "selection", "report"]


def split_of(row: dict[str, Any], config: HeldOut) -> Split:
    """The split of a canonical row (keys id, source, images).

    Decided by the pictures' bytes where there are some: a picture's captions and questions, in whatever source, are held out together.
    """
    digest = hashlib.sha256(b"held out/")
    for image in row["images"]:
        digest.update(hashlib.sha256(image["bytes"]).digest())
    if not row["images"]:
        digest.update(f"{row['source']}/{row['id']}".encode())
    place = int.from_bytes(digest.digest()[:8], "big") * 100
    if place < config.selection << 64:
        return "selection"
    return "report" if place < (config.selection + config.report) << 64 else "train"
