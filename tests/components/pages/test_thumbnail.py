"""Pictures of every kind and size become small PNGs with an address of their own."""

import base64
import io

import pytest
from PIL import Image

from components.data.images import decode
from components.pages.thumbnail import SIDE, picture


def encoded(image: Image.Image, kind: str, **more) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **more)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
@pytest.mark.parametrize(("size", "shown", "crisp"), [((40, 20), (120, 60), True), ((144, 100), (144, 100), False), ((3000, 300), (144, 14), False)])
def test_pictures_of_every_kind_and_size_become_thumbnails(kind, size, shown, crisp):
    made = picture(encoded(Image.new("RGB", size, "red"), kind), 20_000_000)
    assert (made.width, made.height, made.crisp) == (*shown, crisp)
    pixels = decode(base64.b64decode(made.address.removeprefix("data:image/png;base64,")), SIDE**2)
    assert max(pixels.size) <= SIDE
    assert pixels.getpixel((0, 0))[0] > 240


def test_an_animation_shows_its_first_frame_and_a_huge_picture_stays_small():
    frames = [Image.new("RGB", (30, 30), c) for c in ("red", "blue")]
    first = picture(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]), 20_000_000)
    assert first == picture(encoded(frames[0], "GIF"), 20_000_000)
    assert len(picture(encoded(Image.effect_noise((4000, 1000), 90), "JPEG"), 20_000_000).address) < 60_000
