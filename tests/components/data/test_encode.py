import io
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image

from components.data.canonical import SCHEMA, write_shards
from components.data.encode import IGNORE, Pictures, encode, encode_all, read_rows, texts, upright_size, without_images
from components.errors import DataError
from components.models.build import build_processor
from components.models.processor import Processor
from components.models.tokenizer import train_tokenizer
from components.recipe.loader import load
from tests.components.training.corpus import MICRO, row, rows


@pytest.fixture(scope="module")
def processor() -> Processor:
    return build_processor(load(MICRO).model, train_tokenizer(["What color is it?", "two red circles"], 400))


def jpeg(width: int, height: int, orientation: int) -> bytes:
    image = Image.new("RGB", (width, height), "red")
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_tokens_counted_from_the_header_are_those_of_the_decoded_picture(processor: Processor, orientation: int) -> None:
    image = jpeg(64, 32, orientation)
    assert upright_size(image) == ((64, 32) if orientation < 5 else (32, 64))
    sample = encode(row("a", "questions", [("What color is it?", "red")], image), processor, "chat")
    ((values, grid),) = Pictures(processor).patches([sample], 0)
    assert (sample.input_ids == processor.image_token_id).sum() == len(values) // 4 == grid.prod() // 4


def test_a_text_row_loses_its_pictures_and_their_marks_and_nothing_else() -> None:
    before = row("a", "questions", [("What color is it?", "red"), ("How many <image> marks?", "one")], b"...")
    after = without_images(before)
    assert after["images"] == []
    assert [m["content"] for m in after["messages"]] == ["What color is it?", "red", "How many  marks?", "one"]
    assert before["messages"][0]["content"].startswith("<image>")
    assert list(texts([before]))[:2] == ["user\nWhat color is it?", "assistant\nred"]


def test_only_answers_are_learned(processor: Processor) -> None:
    sample = encode(row("a", "questions", [("What color is it?", "red")], None), processor, "chat")
    learned = [int(t) for t, label in zip(sample.input_ids, sample.labels, strict=True) if label != IGNORE]
    assert processor.tokenizer.decode(learned) == "red<|im_end|>"
    assert sample.num_answer_tokens == len(learned)
    assert sample.labels[0] == IGNORE


def test_workers_encode_the_same_samples_in_the_same_order_and_name_a_bad_row(processor: Processor) -> None:
    made = [{**r, "id": f"{r['id']}-{i}"} for i in range(30) for r in rows(12)["questions"]]
    for known, found in zip([encode(r, processor, "chat") for r in made], encode_all(made, processor, "chat", workers=2), strict=True):
        assert (known.id, known.images) == (found.id, found.images)
        assert known.input_ids.tolist() == found.input_ids.tolist()
        assert known.labels.tolist() == found.labels.tolist()
        assert (found.input_ids.dtype, found.labels.dtype) == (known.input_ids.dtype, known.labels.dtype)
    for number in (300, 310):
        made[number] = row(f"bad-{number}", "questions", [("What color is it?", "red")], b"not a picture")
    with pytest.raises(DataError, match=r"^questions: row bad-300: [^\n]*image_validity[^\n]*$"):
        encode_all(made, processor, "chat", workers=2)


@pytest.mark.parametrize("image", [b"", b"not a picture"])
def test_a_row_that_cannot_be_encoded_is_named(processor: Processor, image: bytes) -> None:
    with pytest.raises(DataError, match=r"questions: row a7: .*image_validity"):
        encode(row("a7", "questions", [("What color is it?", "red")], image), processor, "chat")


def test_a_picture_that_ends_early_is_named_when_it_is_decoded(processor: Processor) -> None:
    whole = jpeg(64, 32, 1)
    sample = encode(row("a7", "questions", [("What color is it?", "red")], whole[:-20]), processor, "chat")
    with pytest.raises(DataError, match=r"row a7: .*image_validity"):
        Pictures(processor).patches([sample], 0)


def test_the_share_of_rows_does_not_depend_on_their_order_or_on_shards(tmp_path: Path) -> None:
    made = rows(30)["captions"]
    write_shards(pa.Table.from_pylist(made, schema=SCHEMA), tmp_path / "a", 100)
    write_shards(pa.Table.from_pylist(made[::-1], schema=SCHEMA), tmp_path / "b", 7)
    a, b = ([r["id"] for r in read_rows([tmp_path / f], percent=50, subset_seed=1)] for f in "ab")
    assert sorted(a) == sorted(b)
    assert 5 < len(a) < 25
    assert a == [r["id"] for r in made if r["id"] in set(a)]
