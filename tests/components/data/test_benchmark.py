import base64
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.data.benchmark import Question, read, shuffle_images
from components.errors import DataError
from tests.components.evaluation.tsv import b64, png, row, write

RED, BLUE, GREEN = png("red"), png("blue"), png("green")


def test_a_row_becomes_a_question_with_defaults_for_absent_columns(tmp_path):
    (q,) = read(write(tmp_path / "b.tsv", [row(7, b64(RED))]))
    assert q == Question(f"{tmp_path / 'b.tsv'}: row 1", 7, RED, "what color?", "red", "general", "en")


def test_category_language_and_foreign_columns(tmp_path):
    rows = [row(1, b64(RED), category="color", language="zh", hint="look"), row(2, b64(RED), category="", language="", hint="")]
    first, second = read(write(tmp_path / "b.tsv", rows))
    assert (first.kind, first.language) == ("color", "zh")
    assert (second.kind, second.language) == ("general", "en")


def test_a_short_image_cell_is_the_index_of_the_row_with_the_picture(tmp_path):
    questions = read(write(tmp_path / "b.tsv", [row(1, "5"), row(5, b64(BLUE)), row(9, "5")]))
    assert [q.image for q in questions] == [BLUE, BLUE, BLUE]


def test_an_empty_image_cell_is_a_question_without_a_picture(tmp_path):
    assert read(write(tmp_path / "b.tsv", [row(1, "")]))[0].image is None


def test_a_picture_larger_than_csv_fields_usually_are(tmp_path):
    picture = bytes(range(256)) * 4000
    assert read(write(tmp_path / "b.tsv", [row(1, b64(picture))]))[0].image == picture


def test_a_file_with_a_header_alone_has_no_questions(tmp_path):
    assert read(write(tmp_path / "b.tsv", [])) == []


# a lone carriage return is left out: Python 3.11 writes it without quotes, so the file itself no longer says what it was
text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), min_size=1).filter(str.strip)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(text, text), min_size=1, max_size=6))
def test_reads_whatever_text_pandas_writes(cells):
    with TemporaryDirectory() as folder:
        path = Path(folder, "b.tsv")
        write(path, [row(i, "", question, answer) for i, (question, answer) in enumerate(cells)])
        assert [(q.question, q.answer) for q in read(path)] == cells


@pytest.mark.parametrize("column", ["index", "image", "question", "answer"])
def test_a_missing_column_is_named(tmp_path, column):
    path = tmp_path / "b.tsv"
    pd.DataFrame([row(1, b64(RED))]).drop(columns=column).to_csv(path, sep="\t", index=False)
    with pytest.raises(DataError, match=rf"b\.tsv: no column '{column}'"):
        read(path)


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([row(1, b64(RED)), row(2, b64(RED)), row(1, b64(BLUE))], r"b\.tsv: row 3: index 1 is already that of row 1"),
        ([row("x", b64(RED))], r"b\.tsv: row 1: index is 'x'"),
        ([row(1, b64(RED)), row(2, "?" * 80)], r"b\.tsv: row 2: the image is not base64"),
        ([row(1, b64(RED)), row(2, "圖" * 80)], r"b\.tsv: row 2: the image is not base64"),
        ([row(1, "data:image/png;base64," + b64(RED))], r"b\.tsv: row 1: the image is not base64"),
        ([row(1, b64(RED)), row(2, "3")], r"b\.tsv: row 2: the image '3' is neither base64 nor the index"),
        ([row(1, b64(RED)), row(2, "1"), row(3, "2")], r"b\.tsv: row 3: the image '2' is neither"),
        ([row(1, "pictures/1.png")], r"b\.tsv: row 1: the image 'pictures/1.png' is neither"),
        ([row(1, b64(RED)), row(2, b64(RED), answer="")], r"b\.tsv: row 2: the answer is empty"),
        ([row(1, b64(RED), question="  ")], r"b\.tsv: row 1: the question is empty"),
    ],
)
def test_a_bad_row_is_named(tmp_path, rows, complaint):
    with pytest.raises(DataError, match=complaint):
        read(write(tmp_path / "b.tsv", rows))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"index\timage\tquestion\tanswer\n1\t\twhat\n", "row 1: 3 cells under 4 columns"),
        (b"index\timage\tquestion\tanswer\n1\t\twhat\t\xff\xfe\n", "not a tab-separated text file in UTF-8"),
        (b"", "the file is empty; needed: a header with index, image, question, answer"),
        (b"\n", "no column 'index'.*found: nothing"),
        (b"index|image|question|answer\n1||what|red\n", "no column 'index'"),
    ],
)
def test_a_file_that_is_no_table_of_this_kind(tmp_path, content, complaint):
    (tmp_path / "b.tsv").write_bytes(content)
    with pytest.raises(DataError, match=rf"b\.tsv: .*{complaint}|{complaint}"):
        read(tmp_path / "b.tsv")


@pytest.mark.parametrize("delimiter", [",", ";"])
def test_commas_and_semicolons_cut_columns_too(tmp_path, delimiter):
    rows = [row(1, b64(RED), question="red, or\tblue; which?"), row(2, "1")]
    path = tmp_path / "b.csv"
    pd.DataFrame(rows).to_csv(path, sep=delimiter, index=False)
    assert [(q.image, q.question, q.answer) for q in read(path)] == [(RED, "red, or\tblue; which?", "red"), (RED, "what color?", "red")]


def test_without_a_language_column_the_script_tells(tmp_path):
    rows = [row(1, "", question="什么颜色？", answer="红"), row(2, ""), row(3, "", question="Что это?", answer="круг")]
    assert [q.language for q in read(write(tmp_path / "b.tsv", rows))] == ["zh", "en", "ru"]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"none\.tsv: cannot be read"):
        read(tmp_path / "none.tsv")


def test_the_mark_that_windows_puts_before_utf8_is_no_part_of_the_header(tmp_path):
    path = write(tmp_path / "b.tsv", [row(1, b64(RED))])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read(path)[0].index == 1


def questions(*images):
    return [Question(f"b.tsv: row {i}", i, image, "q", "a") for i, image in enumerate(images)]


@given(st.lists(st.sampled_from([None, b"1", b"2", b"3", b"4"]), max_size=20).filter(lambda images: len({*images} - {None}) != 1))
def test_shuffling_gives_every_question_another_picture_of_the_benchmark(images):
    shuffled = [q.image for q in shuffle_images(questions(*images))]
    assert all(new != old or old is None for new, old in zip(shuffled, images, strict=True))
    assert {*shuffled} == {*images}
    assert shuffled == [q.image for q in shuffle_images(questions(*images))]


def test_shuffling_does_not_depend_on_the_order_of_the_rows():
    rows = questions(RED, BLUE, GREEN, RED, None)
    forward, backward = shuffle_images(rows), shuffle_images(rows[::-1])
    assert forward == backward[::-1]
    assert [q.index for q in forward] == [0, 1, 2, 3, 4]


def test_one_picture_cannot_be_shuffled():
    with pytest.raises(DataError, match=r"b\.tsv: row 0: shuffle_images needs at least two different pictures"):
        shuffle_images(questions(RED, RED))


def test_base64_may_be_broken_into_lines(tmp_path):
    assert read(write(tmp_path / "b.tsv", [row(1, base64.encodebytes(RED).decode())]))[0].image == RED
