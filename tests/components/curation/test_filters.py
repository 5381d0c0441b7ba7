"""Picture validity and exact duplicates, on rows with real picture files."""

import io
from typing import get_args

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from components.curation.exact_duplicates import ExactDuplicates
from components.curation.filter import VERDICTS, RowFilter
from components.curation.filters import FILTERS
from components.curation.image_validity import ImageValidity
from components.curation.near_duplicates import NearDuplicates
from components.curation.row import Picture, Row
from components.data.images import ImageError
from components.recipe import curation
from components.recipe.curation import Curation
from components.step import Step
from tests.components.curation.corpora import picture, row, table

STEP = Step("curate", {})


def judge(judging: RowFilter, rows: list[dict]) -> list[dict]:
    facts = pa.array([judging.fact(Row(r)) for r in rows], type=judging.fact_type)
    verdicts = judging.judge(table(rows).select(["id", "source", "language"]).append_column("facts", facts))
    assert verdicts.schema == VERDICTS
    return verdicts.to_pylist()


def test_every_kind_of_the_recipe_has_its_filter():
    kinds = {section.model_fields["kind"].default for section in get_args(get_args(curation.Filter)[0])}
    assert set(FILTERS) == kinds
    for kind, found in FILTERS.items():
        assert found.kind == kind
    with pytest.raises(ValidationError):
        TypeAdapter(Curation).validate_python({"filters": [{"kind": "sharpness"}]})


def test_pictures_that_cannot_be_decoded_whole_go_to_quarantine():
    whole = picture(1, "JPEG", (64, 48))
    rows = [row("whole", images=[whole, picture(2)]), row("cut", images=[picture(2), whole[:-40]]), row("empty", images=[b""])]
    rows += [row("text"), row("foreign", images=[b"GIF?"]), row("large", images=[picture(1, size=(65, 48))])]
    verdicts = judge(ImageValidity(curation.ImageValidity(max_pixels=64 * 48), STEP), rows)
    assert [v["reason"] for v in verdicts] == ["", "image_truncated", "image_empty", "", "image_unreadable", "image_too_large"]
    assert [v["action"] for v in verdicts] == ["keep", "quarantine", "quarantine", "keep", "quarantine", "quarantine"]
    assert "cut-1.png" in verdicts[1]["detail"]


def test_a_picture_of_exactly_the_allowed_size_stays():
    rows = [row("x", images=[picture(1, size=(8, 8))])]
    assert judge(ImageValidity(curation.ImageValidity(max_pixels=64), STEP), rows)[0]["action"] == "keep"
    assert judge(ImageValidity(curation.ImageValidity(max_pixels=63), STEP), rows)[0]["reason"] == "image_too_large"


def test_of_equal_rows_the_first_is_kept_whatever_their_ids_sources_and_files():
    rows = [
        row("1", images=[picture(1)]),
        row("2", images=[picture(2)]),
        row("3", images=[picture(1, "BMP")], source="b"),
        row("4", images=[picture(1)], answer="blue"),
        row("5"),
        row("6", images=[picture(1), picture(2)]),
        row("7", images=[picture(2), picture(1)]),
        row("8"),
        row("9", images=[picture(1, size=(4, 5))]),
        row("10", images=[picture(1)]),
    ]
    verdicts = judge(ExactDuplicates(curation.ExactDuplicates(), STEP), rows)
    assert [r["id"] for r, v in zip(rows, verdicts, strict=True) if v["action"] == "drop"] == ["3", "8", "10"]
    assert {v["reason"] for v in verdicts if v["action"] == "drop"} == {"exact_duplicate"}


def test_rows_are_told_apart_by_turns_and_not_by_joined_text():
    one, other = row("1"), row("2")
    one["messages"] = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "bc"}]
    other["messages"] = [{"role": "user", "content": "ab"}, {"role": "assistant", "content": "c"}]
    assert [v["action"] for v in judge(ExactDuplicates(curation.ExactDuplicates(), STEP), [one, other])] == ["keep", "keep"]


def test_pictures_that_cannot_be_decoded_are_compared_by_their_bytes():
    rows = [row("1", images=[b"damaged"]), row("2", images=[b"otherwise"]), row("3", images=[b"damaged"])]
    assert [v["action"] for v in judge(ExactDuplicates(curation.ExactDuplicates(), STEP), rows)] == ["keep", "keep", "drop"]


def test_no_rows_get_no_verdicts():
    assert judge(ExactDuplicates(curation.ExactDuplicates(), STEP), []) == []
    assert judge(ImageValidity(curation.ImageValidity(), STEP), []) == []
    assert isinstance(VERDICTS, pa.Schema)


def test_a_picture_is_decoded_once_for_all_filters():
    shown = Row(row("1", images=[picture(1), b"damaged"]))
    filters = [
        ImageValidity(curation.ImageValidity(), STEP),
        ExactDuplicates(curation.ExactDuplicates(), STEP),
        NearDuplicates(curation.NearDuplicates(), STEP),
    ]
    facts = [judging.fact(shown) for judging in filters]
    whole, damaged = shown.pictures
    assert whole.image is whole.image
    assert damaged.error is damaged.error
    assert facts[0]["reason"] == "image_unreadable"
    assert facts == [judging.fact(Row(row("1", images=[picture(1), b"damaged"]))) for judging in filters]


def test_a_picture_says_what_is_wrong_with_it():
    whole, empty, cut = Row(row("1", images=[picture(1), b"", picture(1, "JPEG", (64, 48))[:-40]])).pictures
    assert (whole.size, whole.image.size, whole.error) == ((5, 4), (5, 4), None)
    assert whole.decoded(20) is whole.image
    for broken, reason in ((empty, "image_empty"), (cut, "image_truncated")):
        assert broken.error is not None
        assert broken.error.reason == reason
    assert cut.size == (64, 48)
    for get in (lambda: empty.size, lambda: empty.image, lambda: cut.thumbnail, lambda: whole.decoded(19)):
        with pytest.raises(ImageError):
            get()


def test_the_same_pixels_have_the_same_digest_whatever_the_file_and_its_mode():
    drawing = Image.fromarray(np.random.default_rng(0).integers(0, 2, (40, 50), dtype=np.uint8) * 255).convert("RGB")
    turned = Image.Exif()
    turned[0x112] = 6
    files = [file(drawing.convert(mode), "PNG") for mode in ("RGB", "L", "1", "P", "RGBA", "LA")]
    files += [file(drawing, form) for form in ("BMP", "TIFF", "PPM")] + [file(drawing, "WEBP", lossless=True), file(drawing.convert("P"), "GIF")]
    files += [file(drawing.convert("CMYK"), "TIFF"), file(drawing.transpose(Image.Transpose.ROTATE_90), "PNG", exif=turned)]
    assert len({Picture({"bytes": b, "path": ""}).digest for b in files}) == 1
    other = drawing.copy()
    other.putpixel((49, 39), (1, 2, 3))
    assert len({Picture({"bytes": file(i, "PNG"), "path": ""}).digest for i in (drawing, other, drawing.resize((40, 50)))}) == 3


def test_a_picture_of_many_blocks_has_a_digest():
    large, other = (file(Image.new("RGB", (5000, 3000), color), "BMP") for color in ("red", "blue"))
    assert Picture({"bytes": large, "path": "a"}).digest == Picture({"bytes": large, "path": "b"}).digest != Picture({"bytes": other, "path": ""}).digest


def file(image: Image.Image, form: str, **settings: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **settings)
    return buffer.getvalue()
