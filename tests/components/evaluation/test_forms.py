"""How questions are put and answers are read: options, yes and no, texts within texts, rotations."""

import pytest

from components.data.benchmark import Question, read
from components.errors import DataError
from components.evaluation.extraction import holds, option, yes_or_no
from components.evaluation.forms import put
from components.evaluation.judging import judge
from tests.components.evaluation import tsv

OPTIONS = {"A": "teddy bear", "B": "rabbit", "C": "cat", "D": "dog"}
OLD, NEW = "vlmevalkit-2024-12", "vlmevalkit-2026-08"


def question(text="What is it?", answer="B", options=None, **more):
    return Question("b.tsv: row 3", 3, None, text, answer, options=OPTIONS if options is None else options, **more)


@pytest.mark.parametrize(
    ("answer", "old", "new"),
    [
        ("I'm sorry, but without the image provided, B", "Z", "Z"),
        ("Cannot determine the answer", "Z", "Z"),
        ("b", "", ""),
        ("RABBIT", "B", "B"),
        ("The answer is C, and not A: nothing like it", "", "C"),
        ("answer is E or A or B", "", ""),
        ("", "", ""),
    ],
)
def test_options_are_read_by_letter_then_by_text(answer, old, new):
    assert (option(answer, OPTIONS, OLD), option(answer, OPTIONS, NEW)) == (old, new)


@pytest.mark.parametrize(
    ("answer", "said"),
    [("Yes.", "Yes"), ("no, it is not", "No"), ("yes and no", ""), ("I know nothing", ""), ("NO!", "No"), ("yes,yes", "Yes")],
)
def test_yes_or_no_is_read_as_a_word(answer, said):
    assert yes_or_no(answer) == said


def test_a_text_is_found_within_an_answer_and_a_formula_without_spaces():
    assert holds("It says CENTRE\nStreet.", "centre street")
    assert not holds("Center", "centre")
    assert holds(r"\frac{ 1 } { X }", r"\frac{1}{X}", formula=True)
    assert not holds(r"\frac{1}{x}", r"\frac{1}{X}", formula=True)


def test_questions_are_put_in_points15s_words():
    english = "Look.\nWhat is it?\nA. teddy bear\nB. rabbit\nC. cat\nD. dog\nAnswer with the option's letter from the given choices directly."
    assert put(question(hint="Look."), "choice").question == english
    assert put(question("这是什么？", options={"A": "红", "B": "蓝"}), "choice").question == "这是什么？\nA. 红\nB. 蓝\n请直接回答选项字母。"
    assert put(question(options={}), "choice").question == "What is it?\nAnswer the question directly."
    assert put(question("Is <image 1> red?"), "yes_no").question == "Is \n red? Please answer yes or no. Answer the question using a single word or phrase."
    assert put(question(), "detail").question == "What is it? Answer this question in detail."
    assert put(question(), "answer").question == put(question(), "contains").question == "What is it?"


@pytest.mark.parametrize(
    ("form", "answer", "prediction", "right", "read_as"),
    [
        ("choice", "B", "B. rabbit", True, "B"),
        ("choice", "B", "the dog", False, "D"),
        ("choice", "B", "hm", False, ""),
        ("yes_no", "1", "Yes, it is", True, "Yes"),
        ("yes_no", "0", "yes", False, "Yes"),
        ("contains", "['Main St', 'MAIN STREET']", "It is main street", True, "it is main street"),
        ("contains", "centre", "center", False, "center"),
        ("answer", "Red", "red.", True, "red"),
    ],
)
def test_an_answer_is_read_as_its_form_says(form, answer, prediction, right, read_as):
    (record,) = judge([question(answer=answer)], [prediction], OLD, form)
    assert (record.correct, record.extracted, record.failed) == (right, read_as, not read_as)


def test_an_open_question_among_options_is_read_against_its_answer():
    (record,) = judge([question(answer="0.5 m", options={})], ["it is 0.5 m long"], OLD, "choice")
    assert (record.correct, record.extracted) == (True, "A")


@pytest.mark.parametrize(("form", "answer"), [("choice", "E"), ("yes_no", "maybe"), ("contains", "['cut"), ("contains", "[]")])
def test_a_right_answer_that_cannot_be_one_is_refused(form, answer):
    with pytest.raises(DataError, match=r"b\.tsv: row 3: the answer"):
        judge([question(answer=answer)], ["x"], OLD, form)


def test_rotated_options_are_right_together_or_not_at_all():
    rows = [Question("b", index, None, "q", "A", options=OPTIONS) for index in (1, 1_000_001, 2_000_001, 2, 1_000_002)]
    records = judge(rows, ["A", "A", "B", "A", "A"], OLD, "choice", circular=True)
    assert [(r.question.index, r.correct) for r in records] == [(1, False), (2, True)]


def test_options_and_hint_are_columns_of_the_file(tmp_path):
    rows = [tsv.row(0, tsv.b64(tsv.png("red")), answer="B", hint="Look.", A="red", B="blue", C="")]
    (found,) = read(tsv.write(tmp_path / "b.tsv", rows))
    assert (found.hint, found.options) == ("Look.", {"A": "red", "B": "blue"})
