import hashlib
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.data.benchmark import Question
from components.evaluation.judging import judge
from components.evaluation.scores import Z95, document, mean_interval, model_digest, model_scores, wilson, write


def records(right, wrong, kind="color", language="en"):
    questions = [Question("b.tsv: row", i, None, "q", "red", kind, language) for i in range(right + wrong)]
    return judge(questions, ["red"] * right + ["blue"] * wrong, "exact-1")


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_holds_the_proportions_that_a_score_test_does_not_reject(case):
    correct, n = case
    low, high = wilson(correct, n)
    assert 0 <= low <= correct / n <= high <= 1
    for bound in (low, high):
        if 0 < bound < 1:
            assert math.isclose(abs(correct / n - bound), Z95 * math.sqrt(bound * (1 - bound) / n), rel_tol=1e-6, abs_tol=1e-9)


def test_a_published_interval():
    # Newcombe 1998, Stat Med 17:857-872, table I, method 3: 81 of 263
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_one_part_keeps_its_interval_and_more_parts_narrow_it():
    assert mean_interval([(0.8, 0.7, 0.88)]) == pytest.approx((0.7, 0.88))
    low, high = mean_interval([(0.8, 0.7, 0.88), (0.6, 0.5, 0.69)])
    assert 0.6 < low < 0.7 < high < 0.79


def test_scores_of_a_model():
    judged = {"shapes": records(3, 1) + records(1, 3, "count", "zh"), "shuffled": records(0, 4), "text": records(2, 2)}
    scores = model_scores("d", judged, {"shapes": 1, "text": 1})
    assert scores["overall"] == 0.5
    assert scores["benchmarks"]["shapes"]["by"]["kind"]["color"]["value"] == 0.75
    assert scores["benchmarks"]["shapes"]["by"]["language"]["zh"] == {"value": 0.25, "n": 4, "ci95": list(wilson(1, 4))}
    assert scores["by"]["kind"]["color"]["n"] == 8
    assert scores["benchmarks"]["shuffled"]["value"] == 0


def test_the_overall_score_averages_benchmarks_not_questions():
    assert model_scores("d", {"large": records(90, 0), "small": records(0, 10)}, {"large": 1, "small": 1})["overall"] == 0.5


def test_a_benchmark_without_rows_has_no_value():
    scores = model_scores("d", {"shapes": records(1, 1), "none": []}, {"shapes": 1})
    assert scores["benchmarks"]["none"] == {"value": None, "n": 0, "ci95": None, "failed": 0, "by": {"language": {}, "kind": {}}}


def test_failed_answers_are_counted():
    questions = [Question("b.tsv: row", i, None, "q", "red") for i in range(3)]
    assert model_scores("d", {"x": judge(questions, ["", "red", "."], "exact-1")}, {"x": 1})["benchmarks"]["x"]["failed"] == 2


def test_the_file_is_sorted_and_rounded(tmp_path):
    scores = model_scores("d", {"shapes": records(2, 1)}, {"shapes": 1})
    write(tmp_path / "scores.json", document(scores, {"b": scores, "a": scores}, {"shapes": 1}, "exact-1"))
    text = (tmp_path / "scores.json").read_text()
    content = json.loads(text)
    assert text == json.dumps(content, indent=2, sort_keys=True) + "\n"
    assert content["overall"] == content["candidates"]["a"]["overall"] == 0.666667
    assert (content["schema"], content["split"], content["judge"], content["ruleset"]) == (1, "report", "exact_matching", "exact-1")


def test_the_digest_of_a_model_covers_weights_and_config(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "config.json").write_bytes(b"{}")
    assert model_digest(tmp_path) == hashlib.sha256(b"weights{}").hexdigest()


def test_two_languages_of_one_benchmark_weigh_half_each():
    judged = {"mmb_en": records(80, 20), "mmb_cn": records(60, 40), "mmstar": records(10, 90)}
    weights = {"mmb_en": 0.5, "mmb_cn": 0.5, "mmstar": 1.0}
    scores = model_scores("d", judged, weights)
    assert scores["overall"] == pytest.approx((0.7 + 0.1) / 2)
    assert document(scores, {}, weights, "exact-1")["weights"] == weights
    assert "weights" not in document(scores, {}, {"x": 1.0}, "exact-1")
    narrow = mean_interval([(0.5, 0.4, 0.6)] * 2, [0.5, 0.5])
    assert narrow == pytest.approx(mean_interval([(0.5, 0.4, 0.6)] * 2))
