import pytest

from components.data.benchmark import Question
from components.evaluation.confusion import confusions, most_frequent
from components.evaluation.judging import judge


def records(pairs, kind="color", language="en"):
    asked = [Question("b.tsv: row", i, None, "q", right, kind, language) for i, (right, _) in enumerate(pairs)]
    return judge(asked, [given for _, given in pairs], "exact-1")


def test_a_table_counts_what_was_taken_for_what():
    (table,) = confusions(records([("Red", "red."), ("red", "blue"), ("blue", "blue"), ("blue", "mauve"), ("blue", "")]))
    assert (table.n, table.correct, table.answers) == (5, 2, 2)
    assert table.columns == ["blue", "red", "other", "nothing"]
    assert table.rows == [("blue", [1, 0, 1, 1]), ("red", [1, 1, 0, 0])]


def test_numbers_stand_in_their_order_and_columns_without_counts_are_left_out():
    (table,) = confusions(records([("10", "10"), ("9", "9"), ("2", "10")]))
    assert table.columns == ["2", "9", "10"]


def test_kinds_and_languages_have_tables_of_their_own():
    both = records([("red", "red")]) + records([("红", "红")], language="zh") + records([("1", "1")], "count")
    assert [(t.kind, t.language) for t in confusions(both)] == [("color", "en"), ("color", "zh"), ("count", "en")]


def test_a_right_answer_that_is_called_other_or_nothing_keeps_its_own_column():
    (table,) = confusions(records([("other", "other"), ("nothing", "other"), ("other", "?")]))
    assert table.columns == ["nothing", "other"]
    assert sum(sum(counts) for _, counts in table.rows) == 3


def test_many_answers_are_told_by_their_most_frequent_mix_ups():
    pairs = [(f"w{i}", f"w{i}") for i in range(30)] + [("w1", "w2")] * 3 + [("w5", "w4")] * 2 + [(f"w{i}", "w0") for i in range(6, 30)]
    (table,) = confusions(records(pairs))
    assert table.rows == []
    assert table.mix_ups[:2] == [("w1", "w2", 3), ("w5", "w4", 2)]
    assert len(table.mix_ups) == 10


def test_what_can_be_had_without_looking():
    assert most_frequent(records([("red", "x")] * 3 + [("blue", "x")]) + records([("1", "x"), ("2", "x")], "count")) == pytest.approx(4 / 6)
