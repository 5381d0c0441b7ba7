"""Pictures and texts cut to the size at which a page shows them."""

import base64
import io
from dataclasses import dataclass

from PIL import Image

from components.data.images import decode

SIDE = 144
"""Pictures are shown at most so wide and high, CSS pixels; larger ones are made smaller, small ones a whole number of times larger."""
LONGEST = 240
"""Characters of a text that are shown."""


@dataclass(frozen=True)
class Picture:
    """A PNG as a data address, and the size at which it is shown; `crisp`: enlarged, so that its pixels are to be seen."""

    address: str
    width: int
    height: int
    crisp: bool


def picture(image: bytes, max_pixels: int) -> Picture:
    """The thumbnail of an encoded picture: its first frame, upright. Raises ImageError for one that can not be decoded."""
    thumbnail = decode(image, max_pixels)
    thumbnail.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    thumbnail.save(file, "PNG", optimize=True)
    times = max(1, SIDE // max(thumbnail.size))
    return Picture(f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}", thumbnail.width * times, thumbnail.height * times, times > 1)


def short(text: str) -> str:
    """At most LONGEST characters, the last one `…` where some are left out."""
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
