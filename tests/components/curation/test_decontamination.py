"""Decontamination: rows that give a question of an evaluation file away are found, rows that only resemble one are not."""

import io
import pickle
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance

from components.curation.decontamination import Decontamination
from components.curation.evaluation_set import FREQUENT, files
from components.curation.ngrams import ngrams
from components.curation.perceptual_hash import distances, perceptual_hash
from components.errors import DataError
from components.recipe.curation import Decontamination as Config
from components.step import Step
from tests.components.curation.corpora import row
from tests.components.curation.judging import judge
from tests.components.evaluation.tsv import b64, write
from tests.components.evaluation.tsv import row as question

LONG = "which of the small red circles in the upper left corner of the picture touches the large green square below it"
CHINESE = "请仔细观察这张图片然后告诉我左上角的红色圆形与右下角的绿色正方形哪一个离中间的黄色三角形更近一些"


def scene(seed: int) -> Image.Image:
    rng = random.Random(seed)
    image = Image.new("RGB", (96, 80), (200, 200, 190))
    for _ in range(4):
        x, y, side = rng.randint(0, 70), rng.randint(0, 55), rng.randint(10, 25)
        ImageDraw.Draw(image).rectangle((x, y, x + side, y + side), fill=tuple(rng.randint(0, 255) for _ in range(3)))
    return image


def file(image: Image.Image, form: str = "PNG", **settings) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **settings)
    return buffer.getvalue()


@pytest.fixture
def filter_of(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def make(rows: list[dict], **config) -> Decontamination:
        write(Path("shapes.tsv"), rows)
        params = {"evaluate": {"benchmarks": {"shapes": {"path": "shapes.tsv"}, "held": {"path": None}}}, "soup": {"selection": None}}
        return Decontamination(Config(**config), Step("curate", params))

    return make


def asks(row_id: str, text: str, images: list[bytes] | None = None) -> dict:
    made = row(row_id, images=images)
    made["messages"][0]["content"] = "<image>\n" * len(images or []) + text
    return made


def found(decontamination: Decontamination, rows: list[dict]) -> dict[str, str]:
    return {r["id"]: v["reason"] for r, v in zip(rows, judge(decontamination, rows), strict=True) if v["action"] != "keep"}


def test_equal_pixels_count_alone_whatever_the_file_and_the_question(filter_of):
    shown = scene(1)
    decontamination = filter_of([question(7, b64(file(shown)), question="how many?")])
    rows = [
        asks("bmp", "anything else", [file(shown, "BMP")]),
        asks("second", "x", [file(scene(2)), file(shown)]),
        asks("other", "how many?", [file(scene(2))]),
    ]
    assert found(decontamination, rows) == {"bmp": "evaluation_picture", "second": "evaluation_picture"}
    assert judge(decontamination, rows)[0]["detail"] == "shapes, question 7"
    assert decontamination.report() == {"benchmarks": {"shapes": {"questions": 1, "pixels": 2, "picture": 0, "text": 0}}}


@pytest.mark.parametrize("seed", range(8))
def test_a_changed_copy_counts_with_the_question_and_not_without(filter_of, seed):
    shown = scene(seed)
    decontamination = filter_of([question(1, b64(file(shown)), question="How many squares are there?"), question(2, b64(file(scene(99))), question="what?")])
    copies = [file(shown, "JPEG", quality=75), file(shown.resize((88, 73))), file(ImageEnhance.Brightness(shown).enhance(1.1)), file(shown, "WEBP", quality=70)]
    same = [asks(f"{i}", "how many squares are there? Answer with a number.", [copy]) for i, copy in enumerate(copies)]
    assert found(decontamination, same) == dict.fromkeys("0123", "evaluation_question")
    assert all(0.99 <= v["score"] < 1 for v in judge(decontamination, same))
    assert found(decontamination, [asks(f"{i}", "which colour is the largest?", [copy]) for i, copy in enumerate(copies)]) == {}


def test_other_pictures_under_the_same_short_question_stay(filter_of):
    decontamination = filter_of([question(i, b64(file(scene(i))), question="How many squares are there?") for i in range(20)])
    rows = [asks(f"{i}", "How many squares are there?", [file(scene(i))]) for i in range(100, 200)]
    assert found(decontamination, rows) == {}


def test_thirteen_words_of_a_question_count_alone_and_twelve_do_not(filter_of):
    decontamination = filter_of([question(3, b64(file(scene(1))), question=f"{LONG}?")])
    words = LONG.split()
    rows = [
        asks("13", f"Look: {' '.join(words[4:17]).upper()}!"),
        asks("12", " ".join(words[4:16])),
        asks("split", f"{' '.join(words[:9])} there {' '.join(words[9:18])}"),
    ]
    rows += [row("answer", answer=LONG)]
    assert found(decontamination, rows) == {"13": "evaluation_text", "answer": "evaluation_text"}
    scores = [v["score"] for v in judge(decontamination, rows)]
    assert scores[0] == pytest.approx(1 / (len(words) - 12))
    assert scores[3] == 1


def test_chinese_characters_count_half(filter_of):
    decontamination = filter_of([question(3, b64(file(scene(1))), question=CHINESE)])
    rows = [asks("26", CHINESE[5:31]), asks("25", CHINESE[5:30])]
    assert found(decontamination, rows) == {"26": "evaluation_text"}


def test_words_that_a_benchmark_asks_everything_with_are_not_a_question(filter_of):
    prompt = "hint please answer the question with one number and give the final value at the very end of your answer"
    rows = [question(i, b64(file(scene(i))), question=f"{prompt}: item {i}?") for i in range(FREQUENT + 1)]
    assert found(filter_of(rows), [asks("own", f"{prompt}: how old is she?")]) == {}
    assert found(filter_of(rows[:FREQUENT]), [asks("own", f"{prompt}: how old is she?")]) == {"own": "evaluation_text"}


def test_rows_may_be_tagged_and_broken_pictures_pass(filter_of):
    shown = file(scene(1))
    decontamination = filter_of([question(1, b64(shown), question="what?")], action="tag")
    verdicts = judge(decontamination, [asks("same", "x", [shown]), asks("broken", "what?", [b"broken"]), asks("text", "what?")])
    assert [v["action"] for v in verdicts] == ["tag", "keep", "keep"]


def test_a_benchmark_that_an_evaluation_refuses_is_refused_here(filter_of):
    with pytest.raises(DataError, match=r"shapes\.tsv: row 1: the question is empty"):
        judge(filter_of([question(1, b64(file(scene(1))), question=" ")]), [row("x")])


def test_a_worker_gets_what_the_files_hold_and_needs_them_no_more(filter_of):
    shown = scene(1)
    decontamination = filter_of([question(1, b64(file(shown)), question=f"{LONG}?")])
    rows = [asks("near", LONG, [file(shown, "JPEG", quality=75)]), asks("text", LONG), asks("clean", "what?", [file(scene(2))])]
    sent = pickle.dumps(decontamination)
    Path("shapes.tsv").unlink()
    assert found(pickle.loads(sent), rows) == found(decontamination, rows) == {"near": "evaluation_question", "text": "evaluation_text"}


def test_a_file_is_read_once_under_its_first_name():
    params = {"evaluate": {"benchmarks": {"a": {"path": "x.tsv"}, "b": {"path": "x.tsv"}, "c": {"path": None}}}, "soup": {"selection": "y.tsv"}}
    assert files(params) == {"x.tsv": "a", "y.tsv": "selection"}


def test_runs_begin_at_every_word_and_end_with_the_weight_of_thirteen():
    text = " ".join(f"w{i}" for i in range(20))
    assert len(list(ngrams(text, 13))) == len(set(ngrams(text, 13))) == 8
    assert list(ngrams(text.upper(), 13)) == list(ngrams(text, 13))
    assert list(ngrams(" ".join(f"w{i}" for i in range(12)), 13)) == []
    assert set(ngrams(CHINESE, 13)) >= set(ngrams(CHINESE[3:40], 13)) != set()


def test_the_hash_of_a_picture_hardly_changes_with_its_size_and_much_with_its_content():
    hashes = np.array([perceptual_hash(scene(i)) for i in range(50)], dtype=np.uint64)
    for i in range(50):
        assert distances(perceptual_hash(scene(i).resize((192, 160))), hashes)[i] <= 6
    others = [distances(int(h), np.delete(hashes, i)).min() for i, h in enumerate(hashes)]
    assert np.median(others) > 12
    assert perceptual_hash(Image.new("RGB", (5, 5), "white")) in (0, 2**63)
