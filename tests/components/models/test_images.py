import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import Qwen2VLImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from components.models.errors import ModelError
from components.models.images import patch_rows
from components.models.processor import Processor
from components.models.visual_plan import Native, smart_size
from tests.components.models.conftest import picture

MIN, MAX = 56 * 56, 16384 * 28 * 28


@pytest.mark.parametrize(
    ("height", "width", "min_pixels", "expected", "tokens"),
    [
        (480, 640, MIN, (476, 644), 391),
        (336, 336, MIN, (336, 336), 144),
        (10, 2000, MIN, (28, 812), 29),
        (10, 10, MIN, (56, 56), 4),
        (13, 4000, MIN, (28, 1008), 36),
        (5000, 7000, MIN, (3024, 4228), 16308),
        (1000, 1000, 840**2, (1008, 1008), 1296),
        (300, 400, 840**2, (728, 980), 910),
        (300, 400, 1280 * 784, (868, 1176), 1302),
    ],
)
def test_sizes_and_token_counts_are_those_of_points15(tokenizer, height, width, min_pixels, expected, tokens):
    assert smart_size(width, height, 28, min_pixels, MAX) == expected[::-1]
    processor = Processor(tokenizer, patch=14, merge=2, temporal_patch=2, resolution=Native(min_pixels, MAX))
    assert processor.num_image_tokens(width, height) == tokens


@given(width=st.integers(1, 3000), height=st.integers(1, 3000))
def test_sizes_equal_transformers_where_it_accepts_and_bounds_the_picture(width, height):
    low, high = 3136, 40 * 784
    try:
        expected = smart_resize(height, width, 28, low, high)
    except ValueError:
        return
    if expected[0] * expected[1] <= high:
        assert smart_size(width, height, 28, low, high) == expected[::-1]


@given(width=st.integers(1, 5000), height=st.integers(1, 5000), patch=st.sampled_from([4, 8, 14]), high=st.integers(16, 20_000), low=st.integers(1, 20_000))
@example(width=200, height=1, patch=8, high=2304, low=1024)
@example(width=1, height=5000, patch=14, high=784, low=1)
def test_every_accepted_size_is_a_multiple_of_the_factor_and_within_the_upper_bound(width, height, patch, high, low):
    factor = 2 * patch
    high = max(high, factor**2)
    try:
        w, h = smart_size(width, height, factor, min(low, high), high)
    except ModelError:
        assert min(width, height) >= factor
        assert max(width, height) > 200 * min(width, height)
        return
    assert w % factor == h % factor == 0
    assert min(w, h) >= factor
    assert w * h <= high


def test_a_long_thin_picture_is_refused_with_its_size():
    with pytest.raises(ModelError, match="28x6000"):
        smart_size(28, 6000, 28, MIN, MAX)
    assert smart_size(27, 6000, 28, MIN, MAX) == (28, 5992)  # POINTS1.5 lets tiny sides pass


@settings(max_examples=25, deadline=None)
@given(width=st.integers(8, 90), height=st.integers(8, 90), seed=st.integers(0, 99), patch=st.sampled_from([8, 14]))
def test_patch_rows_equal_transformers_bit_for_bit(width, height, seed, patch):
    low, high = (4 * patch) ** 2, (6 * patch) ** 2
    reference = Qwen2VLImageProcessorPil(patch_size=patch, merge_size=2, temporal_patch_size=2, size={"shortest_edge": low, "longest_edge": high})
    image = picture(seed, width, height)
    expected = reference(images=image, return_tensors="np")
    plan = Native(low, high).plan(width, height, patch, 2)
    rows = patch_rows(image, plan.view, patch, 2, 2)
    assert plan.grids == [tuple(expected["image_grid_thw"][0])]
    assert rows.dtype == np.float32
    assert np.array_equal(rows, expected["pixel_values"])


def test_windows_follow_one_another_and_the_frame_is_repeated():
    image = Image.fromarray(np.arange(8 * 8, dtype=np.uint8).reshape(8, 8)).convert("RGB")
    rows = patch_rows(image, (8, 8), 2, 2, 2)
    first_pixels = rows.reshape(16, 3, 2, 2, 2)[:, 0, 0, 0, 0]
    order = np.argsort(np.argsort(first_pixels))
    assert order.tolist() == [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15]
    frames = rows.reshape(16, 3, 2, 4)
    assert np.array_equal(frames[:, :, 0], frames[:, :, 1])


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1"])
def test_pictures_of_other_modes_are_read_as_rgb(processor, mode):
    image = picture(3).convert(mode)
    rows, grids = processor.image(image)
    expected, _ = processor.image(image.convert("RGB"))
    assert np.array_equal(rows, expected)
    assert len(rows) == grids.prod() == 4 * processor.num_image_tokens(*image.size)


def test_bounds_that_no_picture_can_meet_are_refused(tokenizer):
    with pytest.raises(ModelError, match="max_pixels 200"):
        Processor(tokenizer, patch=8, merge=2, temporal_patch=2, resolution=Native(100, 200))
    with pytest.raises(ModelError, match="min_pixels 5000"):
        Processor(tokenizer, patch=8, merge=2, temporal_patch=2, resolution=Native(5000, 4096))


def test_a_benchmark_may_ask_for_other_bounds(tokenizer):
    processor = Processor(tokenizer, patch=14, merge=2, temporal_patch=2, resolution=Native(3136, MAX))
    assert processor.within(min_pixels=None, max_pixels=None) is processor
    assert processor.within(min_pixels=840**2).num_image_tokens(400, 300) == 910
    with pytest.raises(ModelError, match="max_tiles: the model's resolution is native"):
        processor.within(max_tiles=4)


@pytest.mark.parametrize(("width", "height", "size"), [(1, 1, (56, 56)), (1, 20_000, (28, 7924)), (20_000, 1, (7924, 28)), (27, 27, (56, 56))])
def test_tiny_and_hair_thin_pictures_become_whole_windows(tokenizer, width, height, size):
    processor = Processor(tokenizer, patch=14, merge=2, temporal_patch=2, resolution=Native(3136, MAX))
    rows, grids = processor.image(Image.new("L", (width, height)))
    assert processor.plan(width, height).view == size
    assert (len(rows), grids.tolist()) == (size[0] * size[1] // 14**2, [[1, size[1] // 14, size[0] // 14]])
