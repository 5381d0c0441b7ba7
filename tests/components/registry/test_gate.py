import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.errors import DataError
from components.recipe.gate import Gate
from components.registry.gate import judge, overall, policy_digest


def scores(value, **more):
    return {"overall": value, "split": "report", "ruleset": "exact-1", "benchmarks": {"shapes": {"value": value}}, **more}


def test_the_first_model_becomes_champion():
    verdict = judge(scores(0.0), None, Gate())
    assert verdict.promoted
    assert "first champion" in verdict.reason


def test_a_better_model_is_promoted():
    verdict = judge(scores(0.81), scores(0.8), Gate())
    assert verdict.promoted
    assert verdict.reason == "overall 0.81 is better than the champion's 0.8"


def test_a_worse_model_is_refused():
    verdict = judge(scores(0.79), scores(0.8), Gate())
    assert not verdict.promoted
    assert verdict.reason == "overall 0.79 is worse than the champion's 0.8"


def test_a_tie_is_refused():
    verdict = judge(scores(0.8), scores(0.8), Gate())
    assert not verdict.promoted
    assert "equals" in verdict.reason


@pytest.mark.parametrize(("new", "promoted"), [(0.8, False), (0.800001, True), (0.75, False)])
def test_the_margin_is_exact(new, promoted):
    assert judge(scores(new), scores(0.7), Gate(margin=0.1)).promoted is promoted


@pytest.mark.parametrize(("new", "promoted"), [(0.5, True), (0.499999, False)])
def test_the_minimum_holds_for_the_first_model_too(new, promoted):
    verdict = judge(scores(new), None, Gate(minimum=0.5))
    assert verdict.promoted is promoted
    assert promoted or "minimum of 0.5" in verdict.reason


def test_a_reader_learns_that_two_models_were_measured_differently():
    verdict = judge(scores(0.9), scores(0.8, ruleset="exact-0", benchmarks={}), Gate())
    assert verdict.promoted
    assert "measured differently: ruleset, benchmarks" in verdict.reason


@pytest.mark.parametrize("bad", [None, "0.9", float("nan"), float("inf"), 1.2, -0.1, True, {"value": 0.9}])
def test_scores_without_a_usable_overall_are_refused_with_a_sentence(bad):
    with pytest.raises(DataError, match=r"scores\.json: overall"):
        overall({"overall": bad})


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 0.5))
def test_of_two_models_at_most_one_beats_the_other(a, b, margin):
    gate = Gate(margin=margin)
    assert not (judge(scores(a), scores(b), gate).promoted and judge(scores(b), scores(a), gate).promoted)


def test_the_policy_digest_names_the_settings():
    assert policy_digest(Gate()) == policy_digest(Gate(minimum=0, margin=0))
    assert len({policy_digest(g) for g in (Gate(), Gate(minimum=0.1), Gate(margin=0.1))}) == 3
