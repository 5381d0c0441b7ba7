"""Near duplicates: copies that were re-encoded, resized or brightened are found, other pictures under the same caption are not."""

import io
import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageEnhance

from components.curation.minhash import BANDS, bands, jaccard, neighbourhoods, shingles
from components.curation.near_duplicates import NearDuplicates
from components.curation.row import Row
from components.curation.words import words
from components.recipe.curation import NearDuplicates as Config
from components.step import Step
from tests.components.curation.corpora import row, table


def judge(rows: list[dict], **config) -> list[dict]:
    shown = table(rows)
    judging = NearDuplicates(Config(**config), Step("curate", {}))
    facts = pa.array([judging.fact(Row(r)) for r in rows], type=judging.fact_type)
    return judging.judge(shown.select(["id", "source", "language"]).append_column("facts", facts)).to_pylist()


def dropped(rows: list[dict], **config) -> list[str]:
    return [r["id"] for r, v in zip(rows, judge(rows, **config), strict=True) if v["action"] == "drop"]


def scene(seed: int) -> Image.Image:
    rng = random.Random(seed)
    image = Image.new("RGB", (rng.randint(40, 90), rng.randint(40, 90)), (200, 200, 190))
    x, y, half = rng.randint(10, 30), rng.randint(10, 30), rng.randint(5, 10)
    ImageDraw.Draw(image).ellipse((x - half, y - half, x + half, y + half), fill=(220, 40, 40))
    return image


def file(image: Image.Image, form: str = "PNG", **settings) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **settings)
    return buffer.getvalue()


def copies(image: Image.Image) -> list[bytes]:
    smaller = image.resize((round(image.width * 0.92), round(image.height * 0.92)), Image.Resampling.BICUBIC)
    return [
        file(image, "JPEG", quality=70),
        file(image, "WEBP", quality=60),
        file(smaller),
        file(ImageEnhance.Brightness(image).enhance(1.1)),
        file(smaller, "JPEG"),
    ]


@pytest.mark.parametrize("seed", range(12))
def test_altered_copies_with_the_same_text_are_dropped_and_the_first_row_stays(seed):
    rows = [row("first", images=[file(scene(seed))]), *(row(f"copy{i}", images=[b], source="b") for i, b in enumerate(copies(scene(seed))))]
    assert dropped(rows) == [r["id"] for r in rows[1:]]


def test_other_pictures_with_the_same_text_stay():
    assert dropped([row(f"{i}", images=[file(scene(i))]) for i in range(60)]) == []


def test_the_same_picture_with_another_text_stays():
    answers = ["one red circle on the left", "red one circle left the on", "one blue circle on the left", "two red circles on the left", "圆形"]
    assert dropped([row(a, answer=a, images=[file(scene(1))]) for a in answers]) == []


def test_texts_may_differ_in_case_spaces_and_punctuation_or_a_little():
    long = "a large red circle lies on the left side of a grey square and nothing else can be seen in it"
    near = long.replace("nothing else can", "nothing more can")
    rows = [
        row("0", answer=long, images=[file(scene(1))]),
        row("1", answer=f" {long.upper()}. ", images=[file(scene(1))]),
        row("2", answer=near, images=[file(scene(1))]),
    ]
    similarity = jaccard(shingles(f"What?\n{long}"), shingles(f"What?\n{near}"))
    assert 0.6 < similarity < 0.8
    assert dropped(rows) == ["1"]
    assert dropped(rows, text_percent=60) == ["1", "2"]


def test_a_copy_of_a_dropped_copy_is_compared_with_what_is_kept():
    images = [ImageEnhance.Color(scene(3)).enhance(c) for c in (1.0, 0.93, 0.86)]
    verdicts = judge([row(f"{i}", images=[file(image)]) for i, image in enumerate(images)], picture_percent=50)
    one, two = verdicts[1]["score"], verdicts[2]["score"]
    assert 0.9 < two < one < 1
    rows = [row(f"{i}", images=[file(image)]) for i, image in enumerate(images)]
    assert dropped(rows, picture_percent=50 * (one + two)) == ["1"]  # 2 is near 1, which is gone, and not near 0


def test_all_pictures_of_a_row_count_in_their_order():
    one, two = file(scene(1)), file(scene(2))
    rows = [row("0", images=[one, two]), row("1", images=[two, one]), row("2", images=[one]), row("3", images=[file(scene(1), "JPEG"), two])]
    assert dropped(rows) == ["3"]


def test_rows_without_pictures_or_with_broken_ones_pass():
    assert [v["action"] for v in judge([row("0"), row("1"), row("2", images=[b"broken"]), row("3", images=[b"broken"])])] == ["keep"] * 4
    assert judge([]) == []


def test_words_of_any_script():
    assert words("It's  RED, one-two！") == ["it", "s", "red", "one", "two"]
    assert words("两个红色的圆。OK") == ["两", "个", "红", "色", "的", "圆", "ok"]
    assert words("ｗｉｄｅ") == ["wide"]
    assert words(" .") == []


def numbers_of(texts: list[str]) -> list[int]:
    return neighbourhoods(np.frombuffer(b"".join(bands(shingles(t)) for t in texts), dtype="<u8").reshape(-1, BANDS)).tolist()


TEXT = st.lists(st.sampled_from(["a", "b", "c", "d", "e", "f", "g", "h"]), max_size=30).map(" ".join)


@given(TEXT, TEXT)
def test_jaccard_is_that_of_the_sets(one, other):
    a, b = shingles(one), shingles(other)
    assert jaccard(a, b) == jaccard(b, a) == sum(s in b for s in a) / len({*a, *b})
    assert jaccard(a, a) == 1


@given(st.lists(TEXT, max_size=12))
@settings(max_examples=50, deadline=None)
def test_equal_texts_are_neighbours(texts):
    numbers = numbers_of(texts)
    for i, one in enumerate(texts):
        for j, other in enumerate(texts):
            assert shingles(one) != shingles(other) or numbers[i] == numbers[j]


def test_similar_texts_are_neighbours_and_most_others_are_not():
    rng = random.Random(0)
    vocabulary = [f"w{i}" for i in range(2000)]
    texts = [[rng.choice(vocabulary) for _ in range(60)] for _ in range(200)]
    changed = [[*t[:59], "changed"] for t in texts]
    together = [" ".join(t) for t in texts + changed]
    assert min(jaccard(shingles(a), shingles(b)) for a, b in zip(together[:200], together[200:], strict=True)) > 0.9
    numbers = numbers_of(together)
    assert numbers[:200] == numbers[200:]
    assert len(set(numbers)) == 200
