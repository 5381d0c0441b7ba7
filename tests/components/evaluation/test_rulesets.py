import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.data.benchmark import Question
from components.errors import DataError, RecipeError
from components.evaluation.judging import judge
from components.evaluation.rulesets import exact_1, find


@pytest.mark.parametrize(
    ("answer", "read"),
    [
        ("Red", "red"),
        ("  red.\n", "red"),
        ("RED !?", "red"),
        ("红色。", "红色"),
        ("三个！", "三个"),
        ("dark\n  red", "dark red"),
        ("dark　red", "dark red"),
        ("1.5", "1.5"),
        ("Straße", "strasse"),
        ("...", ""),
        ("", ""),
        (" 。 ", ""),
        ("red, blue", "red, blue"),
        (".red", ".red"),
    ],
)
def test_exact_1_reads(answer, read):
    assert exact_1(answer) == read


@given(st.text())
def test_reading_twice_changes_nothing(text):
    assert exact_1(exact_1(text)) == exact_1(text)


@given(st.text(), st.sampled_from([".", "。", "!", " ", "\n", "！ "]), st.sampled_from(["", " ", "\t"]))
def test_what_stands_around_an_answer_does_not_matter(text, end, start):
    assert exact_1(start + text + end) == exact_1(text)


def test_an_unknown_rule_set_is_refused_with_the_known_ones():
    with pytest.raises(RecipeError, match=r"evaluate\.ruleset: 'exact-2' is not a rule set; known: exact-1"):
        find("exact-2")


def question(answer):
    return Question("b.tsv: row 3", 3, None, "what color?", answer)


@pytest.mark.parametrize(
    ("prediction", "correct", "failed"), [("Red.", True, False), ("blue", False, False), ("", False, True), ("?!", False, True), ("red red", False, False)]
)
def test_judging(prediction, correct, failed):
    (record,) = judge([question("red")], [prediction], "exact-1")
    assert (record.correct, record.failed) == (correct, failed)
    assert record.prediction == prediction


def test_a_right_answer_in_which_nothing_can_be_read_is_refused():
    with pytest.raises(DataError, match=r"b\.tsv: row 3: rule set exact-1 reads nothing in the answer '\?'"):
        judge([question("?")], ["?"], "exact-1")
