import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers import GotOcr2ImageProcessorPil
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

from components.models.errors import ModelError
from components.models.images import views
from components.models.processor import Processor
from components.models.visual_plan import Fixed, Native, Tiles, from_dict, ratios, to_dict, within
from tests.components.models.conftest import picture

TILES = Tiles(448, 12)


def test_internvl15s_numbers_of_arrangements_and_tokens():
    assert len(ratios(1, 12)) == 35
    assert len(ratios(1, 6)) == 14
    plan = TILES.plan(800, 1300, 14, 2)
    assert (plan.canvas, len(plan.boxes), plan.thumbnail) == ((896, 1344), 6, True)
    assert TILES.plan(448, 448, 14, 2).num_tokens == 256
    assert Tiles(448, 12).plan(4000, 3000, 14, 2).num_tokens == 256 * 13
    assert Tiles(448, 40).plan(5 * 800, 8 * 800, 14, 2).num_tokens == 10_496


@given(width=st.integers(1, 5000), height=st.integers(1, 5000), size=st.sampled_from([28, 448]), most=st.integers(1, 40))
def test_tiles_are_arranged_as_by_transformers(width, height, size, most):
    columns, rows = get_optimal_tiled_canvas((height, width), (size, size), 1, most)
    assert Tiles(size, most).plan(width, height, 14, 2).canvas == (columns * size, rows * size)


@pytest.mark.parametrize("size", [(90, 40), (40, 90), (61, 60), (200, 30), (1, 500)])
def test_views_equal_transformers_tiles_bit_for_bit(tokenizer, size):
    reference = GotOcr2ImageProcessorPil(size={"height": 28, "width": 28}, crop_to_patches=True, max_patches=6)
    image = picture(5, *size)
    expected = reference(images=image, return_tensors="np")["pixel_values"]
    processor = Processor(tokenizer, patch=7, merge=2, temporal_patch=1, resolution=Tiles(28, 6))
    rows, grids = processor.image(image)
    assert len(grids) == len(expected)
    pixels = rows.reshape(len(grids), 2, 2, 2, 2, 3, 7, 7).transpose(0, 5, 1, 3, 6, 2, 4, 7).reshape(-1, 3, 28, 28)
    assert np.array_equal(pixels, expected)


def test_llava15_pads_to_a_square_of_576_tokens():
    plan = Fixed(336).plan(640, 480, 14, 1)
    assert (plan.num_tokens, plan.grids, plan.pad) == (576, [(1, 24, 24)], True)
    assert not Fixed(336).plan(500, 500, 14, 1).pad
    (view,) = views(Image.new("RGB", (640, 320), "red"), plan, background=(1, 2, 3))
    assert view.size == (336, 336)
    assert (view.getpixel((168, 5)), view.getpixel((168, 168)), view.getpixel((168, 330))) == ((1, 2, 3), (255, 0, 0), (1, 2, 3))
    (squeezed,) = views(Image.new("RGB", (640, 320), "red"), Fixed(336, "resize").plan(640, 320, 14, 1))
    assert squeezed.getpixel((168, 5)) == (255, 0, 0)


def test_native_gives_one_view_of_about_the_pictures_size():
    plan = Native(3136, 1_003_520).plan(1300, 800, 14, 2)
    assert (plan.canvas, plan.grids, plan.num_tokens) == ((1260, 784), [(1, 56, 90)], 1260)


@given(
    width=st.integers(1, 3000), height=st.integers(1, 3000),
    resolution=st.sampled_from([Native(784, 40_000), Fixed(56), Fixed(56, "resize"), Tiles(56, 9), Tiles(28, 4, 2, False)]),
)  # fmt: skip
def test_the_plan_says_what_the_processor_makes(tokenizer, width, height, resolution):
    processor = Processor(tokenizer, patch=14, merge=2, temporal_patch=1, resolution=resolution)
    try:
        plan = processor.plan(width, height)
    except ModelError:
        return
    rows, grids = processor.image(Image.new("RGB", (width, height)))
    assert grids.tolist() == [list(grid) for grid in plan.grids]
    assert rows.shape == (grids.prod(-1).sum(), 3 * 14 * 14) == (4 * plan.num_tokens, 588)


@pytest.mark.parametrize("resolution", [Native(784, 40_000), Fixed(56, "resize"), Tiles(56, 9, 2, False)])
def test_a_resolution_survives_the_journey_through_json(resolution):
    assert from_dict(to_dict(resolution)) == resolution


def test_a_benchmark_may_ask_for_other_bounds_that_the_resolution_has():
    assert within(TILES, max_tiles=40, min_pixels=None) == Tiles(448, 40)
    assert within(Native(1, 9), min_pixels=4) == Native(4, 9)
    with pytest.raises(ModelError, match="min_pixels: the model's resolution is tiles"):
        within(TILES, min_pixels=4)


@pytest.mark.parametrize("resolution", [Fixed(30), Tiles(30, 4), Tiles(28, 0), Tiles(28, 3, 4)])
def test_views_that_are_not_made_of_windows_are_refused(tokenizer, resolution):
    with pytest.raises(ModelError, match=r"not made of whole windows|tiles: a picture needs"):
        Processor(tokenizer, patch=14, merge=2, temporal_patch=1, resolution=resolution)
