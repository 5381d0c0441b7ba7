"""Pictures: refused by their header before they are decoded, decoded upright in RGB, no damage slips through."""

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from components.data.encode import upright_size
from components.data.images import ImageError, decode, pixel_digest, size
from components.data.quarantine import REASONS


def picture(width: int = 24, height: int = 16, mode: str = "RGB") -> Image.Image:
    values = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


def file(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def reason(content: bytes, max_pixels: int = 10**6) -> str:
    with pytest.raises(ImageError) as error:
        decode(content, max_pixels)
    assert error.value.reason in REASONS
    assert str(error.value)
    return error.value.reason


@pytest.mark.parametrize(
    ("form", "mode"),
    [("PNG", "RGB"), ("PNG", "RGBA"), ("PNG", "P"), ("PNG", "L"), ("PNG", "1"), ("JPEG", "CMYK"), ("WEBP", "RGB"), ("GIF", "P"), ("BMP", "RGB")],
)
def test_every_format_and_mode_becomes_rgb(form, mode):
    image = decode(file(picture(mode=mode), form), 10**6)
    assert image.mode == "RGB"
    assert image.size == (24, 16)


def test_a_lossless_picture_keeps_its_pixels_and_its_digest_in_every_format():
    digests = {pixel_digest(decode(file(picture(), form), 10**6)) for form in ("PNG", "BMP", "TIFF", "PPM")}
    assert digests == {pixel_digest(picture())}


def test_digests_tell_pixels_sizes_and_orders_apart():
    wide, tall = Image.new("RGB", (4, 2)), Image.new("RGB", (2, 4))
    other = Image.new("RGB", (4, 2), (0, 0, 1))
    assert len({pixel_digest(i) for i in (wide, tall, other)}) == 3


def test_a_picture_is_turned_upright_as_its_exif_says():
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise
    turned = decode(file(picture(), "PNG", exif=exif), 10**6)
    assert turned.size == (16, 24)
    assert np.array_equal(np.asarray(turned), np.rot90(np.asarray(picture()), -1))


def test_too_many_pixels_are_refused_by_the_header_alone():
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 9000, 9000, 8, 2, 0, 0, 0))
    no_pixels = head + chunk(b"IDAT", b"") + chunk(b"IEND", b"")  # decoding it would fail in another way
    assert reason(no_pixels, 9000 * 9000 - 1) == "image_too_large"
    assert size(no_pixels, 9000 * 9000) == (9000, 9000)
    giant = head.replace(struct.pack(">II", 9000, 9000), struct.pack(">II", 2**20, 2**20))
    assert reason(giant[:16] + struct.pack(">II", 2**20, 2**20) + giant[24:], 10**12) in ("image_too_large", "image_unreadable")


def test_empty_foreign_and_dangerous_files_are_refused():
    assert reason(b"") == "image_empty"
    assert reason(b"hello") == "image_unreadable"
    assert reason(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n") == "image_unreadable"


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_a_picture_that_is_cut_off_anywhere_in_its_pixels_is_refused(form):
    whole = file(picture(64, 64), form)
    for part in (0.3, 0.5, 0.7, 0.9):
        assert reason(whole[: int(len(whole) * part)]) in ("image_truncated", "image_unreadable")


@given(st.sampled_from(["PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP"]), st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=6))
@settings(max_examples=150, deadline=None)
def test_any_damage_gives_a_picture_or_a_reason_and_never_another_error(form, damage):
    content = bytearray(file(picture(), form))
    for place, value in damage:
        content[place % len(content)] = value
    try:
        image = decode(bytes(content), 10**5)
    except ImageError as error:
        found = error.reason
    else:
        found = image.mode
    assert found in {"RGB", *REASONS}


def test_transparent_parts_show_white_paper():
    drawing = Image.new("RGBA", (4, 2), (0, 0, 0, 0))
    drawing.putpixel((0, 0), (200, 0, 0, 255))
    drawing.putpixel((1, 0), (0, 0, 0, 128))
    image = decode(file(drawing, "PNG"), 10**6)
    assert [image.getpixel((x, 0)) for x in range(3)] == [(200, 0, 0), (127, 127, 127), (255, 255, 255)]
    glyph = Image.new("LA", (4, 2), (0, 0))
    assert decode(file(glyph, "PNG"), 10**6).getpixel((0, 0)) == (255, 255, 255)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_of_16_bits(color_type: int, values: np.ndarray, *extra: bytes) -> bytes:
    """A PNG by hand: (height, width) or (height, width, channels), uint16."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, color_type, 0, 0, 0))
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(extra) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


DEEP = np.array([[0, 255, 256, 0x7FFF, 0x8000, 0xFF00, 0xFFFF]], dtype=np.uint16)
SCALED = [0, 0, 1, 127, 128, 255, 255]


def pixels(content: bytes) -> list[list[int]]:
    return np.asarray(decode(content, 10**6))[0].tolist()


def test_16_bits_are_scaled_to_8_in_grey_and_in_colour_alike() -> None:
    grey = [[v, v, v] for v in SCALED]
    assert pixels(png_of_16_bits(0, DEEP)) == grey
    assert pixels(png_of_16_bits(2, np.repeat(DEEP[..., None], 3, axis=2))) == grey
    assert pixels(file(Image.fromarray(DEEP), "TIFF")) == grey
    assert pixels(b"P5 7 1 65535\n" + DEEP.astype(">u2").tobytes()) == grey


def test_transparent_parts_of_a_picture_of_16_bits_are_white() -> None:
    assert pixels(png_of_16_bits(0, DEEP, chunk(b"tRNS", struct.pack(">H", 0x8000))))[3:5] == [[127] * 3, [255] * 3]
    assert pixels(png_of_16_bits(4, np.stack([DEEP, np.zeros_like(DEEP)], axis=2))) == [[255] * 3] * 7


def test_fractions_are_scaled_and_values_that_are_none_are_black() -> None:
    values = np.array([[0.0, 0.5, 1.0, np.nan, -3.0]], dtype=np.float32)
    assert [p[0] for p in pixels(file(Image.fromarray(values), "TIFF"))] == [0, 128, 255, 0, 0]
    assert [p[0] for p in pixels(file(Image.fromarray(values * 200), "TIFF"))] == [0, 100, 200, 0, 0]


def test_a_cmyk_jpeg_and_a_palette_with_transparency_keep_their_colours() -> None:
    assert pixels(file(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"))[0] == [255, 0, 0]
    drawing = Image.new("P", (2, 1))
    drawing.putpalette([0, 0, 0, 0, 0, 200])
    drawing.putdata([0, 1])
    assert pixels(file(drawing, "PNG", transparency=0)) == [[255, 255, 255], [0, 0, 200]]
    assert pixels(file(drawing, "GIF", transparency=0)) == [[255, 255, 255], [0, 0, 200]]


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_several_frames_the_first_is_taken(form: str) -> None:
    frames = [Image.new("RGB", (20, 10), color) for color in ("red", "blue")]
    options = {"lossless": True} if form == "WEBP" else {}
    assert pixels(file(frames[0], form, save_all=True, append_images=frames[1:], **options))[5] == [255, 0, 0]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_undone(orientation: int) -> None:
    upright = np.asarray(picture())
    stored = {1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1]} | {
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = file(Image.fromarray(np.ascontiguousarray(stored[orientation])), "PNG", exif=exif)
    assert np.array_equal(np.asarray(decode(content, 10**6)), upright)
    assert upright_size(content) == (24, 16)


def test_damaged_exif_data_leaves_the_picture_as_it_is() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = file(picture(), "JPEG", exif=exif)
    at = content.index(b"Exif\0\0") + 6
    for damage in (b"XX", b"II*\0\xf0\xff\xff\xff", b"\0" * 20):
        damaged = content[:at] + damage + content[at + len(damage) :]
        assert decode(damaged, 10**6).size == upright_size(damaged)


@pytest.mark.parametrize("head", [b"zTXtComment\0\0", b"iCCPicc\0\0"])
def test_a_small_picture_that_unpacks_to_much_beside_its_pixels_is_refused(head: bytes) -> None:
    whole, bomb = file(picture(), "PNG"), chunk(head[:4], head[4:] + zlib.compress(bytes(2**26), 9))
    tracemalloc.start()
    assert reason(whole[:33] + bomb + whole[33:]) == "image_unreadable"
    assert tracemalloc.get_traced_memory()[1] < 2**23
    tracemalloc.stop()
