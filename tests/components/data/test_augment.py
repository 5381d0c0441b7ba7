"""Varied copies: the same size, the same every time, mild, and never mirrored unless asked."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from components.data.augment import rng_of, vary
from components.recipe.augment import Augment


def corner(size: tuple[int, int] = (40, 30)) -> Image.Image:
    """White, with a black block in its upper left corner."""
    image = Image.new("RGB", size, "white")
    ImageDraw.Draw(image).rectangle((0, 0, size[0] // 2, size[1] // 2), fill="black")
    return image


def quarters(image: Image.Image) -> list[float]:
    """Mean brightness of the upper left, upper right, lower left, lower right quarter."""
    pixels = np.asarray(image.convert("L"), dtype=float)
    h, w = pixels.shape
    return [float(p.mean()) for half in (pixels[: h // 2], pixels[h // 2 :]) for p in (half[:, : w // 2], half[:, w // 2 :])]


def test_nothing_to_vary_leaves_the_pixels_alone() -> None:
    still = Augment(shift=0, scale=0, brightness=0, contrast=0)
    for size in ((40, 30), (33, 57), (16, 16)):
        assert np.array_equal(np.asarray(vary(corner(size), still, rng_of(0, "a", 0, 1))), np.asarray(corner(size)))


@given(
    size=st.tuples(st.integers(8, 90), st.integers(8, 90)),
    config=st.builds(
        Augment,
        shift=st.floats(0, 0.5),
        scale=st.floats(0, 1),
        stretch=st.floats(0, 1),
        rotate=st.floats(0, 180),
        brightness=st.floats(0, 1),
        contrast=st.floats(0, 1),
        flip=st.booleans(),
    ),
    copy=st.integers(1, 9),
)
@settings(max_examples=80, deadline=None)
def test_any_setting_keeps_the_size_and_gives_the_same_picture_again(size, config, copy):
    first, again = (vary(corner(size), config, rng_of(3, "row", 0, copy)) for _ in range(2))
    assert first.size == size
    assert first.mode == "RGB"
    assert first.tobytes() == again.tobytes()


def test_a_picture_of_one_colour_keeps_it_up_to_the_edge() -> None:
    plain = Image.new("RGB", (40, 30), (90, 120, 200))
    config = Augment(shift=0.4, scale=0.5, rotate=45, brightness=0, contrast=0)
    for copy in range(20):
        assert np.ptp(np.asarray(vary(plain, config, rng_of(0, "a", 0, copy))), axis=(0, 1)).max() <= 1


def test_mild_copies_differ_from_each_other_and_keep_what_is_where() -> None:
    copies = [vary(corner(), Augment(), rng_of(0, "a", 0, copy)) for copy in range(1, 20)]
    assert len({c.tobytes() for c in copies}) == len(copies)
    for values in map(quarters, copies):
        assert values[0] == min(values)


def test_a_mirror_is_only_for_those_who_ask() -> None:
    def mirrored(flip: bool) -> set[bool]:
        found = (quarters(vary(corner(), Augment(flip=flip), rng_of(0, "a", 0, copy))) for copy in range(30))
        return {values[1] < values[0] for values in found}

    assert mirrored(False) == {False}
    assert mirrored(True) == {False, True}


@pytest.mark.parametrize("other", [(1, "a", 0, 1), (0, "b", 0, 1), (0, "a", 1, 1), (0, "a", 0, 2)])
def test_seed_row_picture_and_copy_each_give_other_numbers(other: tuple[int, str, int, int]) -> None:
    assert rng_of(0, "a", 0, 1).random() != rng_of(*other).random()
