"""The mixture: exact counts in the recipe's shares, rows by their names alone, no row twice that the recipe does not repeat."""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from components.curation.mixture import changes_nothing, copies, mixed, wanted
from components.recipe.mixture import Mixture

COUNTS = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 5000), min_size=1)


def mixture(**config) -> Mixture:
    return TypeAdapter(Mixture).validate_python(config)


def any_kind(**more):
    fixed = {s: i + 1 for i, s in enumerate("abcdef")}
    kinds = (
        {"kind": "proportional"},
        {"kind": "sqrt"},
        {"kind": "temperature", "temperature": 3.5},
        {"kind": "fixed", "shares": fixed},
        {"kind": "capped", "cap": 700},
    )
    return [mixture(**kind, **more) for kind in kinds]


@pytest.mark.parametrize(
    ("config", "counts", "expected"),
    [
        ({"kind": "proportional"}, {"a": 30, "b": 10}, {"a": 30, "b": 10}),
        ({"kind": "proportional", "rows": 20}, {"a": 30, "b": 10}, {"a": 15, "b": 5}),
        ({"kind": "proportional", "repeats": {"b": 3}}, {"a": 30, "b": 10}, {"a": 30, "b": 30}),
        ({"kind": "sqrt", "rows": 40}, {"a": 900, "b": 100}, {"a": 30, "b": 10}),
        ({"kind": "sqrt"}, {"a": 900, "b": 100}, {"a": 300, "b": 100}),
        ({"kind": "temperature", "temperature": 2}, {"a": 900, "b": 100}, {"a": 300, "b": 100}),
        ({"kind": "temperature", "temperature": 1}, {"a": 900, "b": 100}, {"a": 900, "b": 100}),
        ({"kind": "fixed", "shares": {"a": 2, "b": 1}}, {"a": 30, "b": 10}, {"a": 20, "b": 10}),
        ({"kind": "fixed", "shares": {"a": 2, "b": 1}, "repeats": {"b": 2}}, {"a": 30, "b": 10}, {"a": 30, "b": 15}),
        ({"kind": "fixed", "shares": {"a": 1, "b": 1}, "rows": 36}, {"a": 30, "b": 10}, {"a": 26, "b": 10}),
        ({"kind": "fixed", "shares": {"a": 1, "b": 1}}, {"a": 30, "b": 0}, {"a": 30, "b": 0}),
        ({"kind": "capped", "cap": 12}, {"a": 30, "b": 10}, {"a": 12, "b": 10}),
        ({"kind": "capped", "cap": 12, "repeats": {"b": 3}}, {"a": 30, "b": 10}, {"a": 12, "b": 12}),
        ({"kind": "capped", "cap": 12, "rows": 11}, {"a": 30, "b": 10}, {"a": 6, "b": 5}),
        ({"kind": "sqrt", "rows": 5}, {"a": 0, "b": 0}, {"a": 0, "b": 0}),
        ({"kind": "proportional", "rows": 10**6}, {"a": 30, "b": 10}, {"a": 30, "b": 10}),
    ],
)
def test_counts_are_those_of_the_recipe(config, counts, expected):
    assert wanted(mixture(**config), counts) == expected


@given(counts=COUNTS, rows=st.integers(1, 20_000), repeats=st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 4)))
@settings(max_examples=200, deadline=None)
def test_a_total_is_kept_exactly_and_no_source_gives_more_than_it_may(counts, rows, repeats):
    for config in any_kind(rows=rows, repeats=repeats):
        most = {s: n * repeats.get(s, 1) for s, n in counts.items()}
        most = {s: min(n, 700) for s, n in most.items()} if config.kind == "capped" else most
        taken = wanted(config, counts)
        assert sum(taken.values()) == min(rows, sum(most.values()))
        assert all(0 <= taken[s] <= most[s] for s in counts)
        assert wanted(config, dict(reversed(counts.items()))) == taken


@given(counts=COUNTS)
@settings(max_examples=200, deadline=None)
def test_without_a_total_the_shares_are_kept_and_a_source_is_used_up(counts):
    for config in any_kind():
        taken = wanted(config, counts)
        assert all(taken[s] <= n for s, n in counts.items())
        if config.kind == "fixed":
            there = {s: config.shares[s] for s, n in counts.items() if n}
            for s, share in there.items():
                assert abs(taken[s] - sum(taken.values()) * share / sum(there.values())) < 1
            if there:  # one row more of the whole could not be had in these shares
                assert any((sum(taken.values()) + 1) * share > counts[s] * sum(there.values()) for s, share in there.items())
        if config.kind in ("proportional", "capped"):
            assert taken == {s: min(n, 700) if config.kind == "capped" else n for s, n in counts.items()}


@given(ids=st.sets(st.text(max_size=5), max_size=60).map(list), number=st.integers(0, 200), seed=st.integers(0, 3), order=st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_rows_are_taken_by_name_without_replacement_whatever_their_order(ids, number, seed, order: random.Random):
    taken = dict(zip(ids, copies("a", ids, number, seed), strict=True))
    shuffled = ids[:]
    order.shuffle(shuffled)
    assert dict(zip(shuffled, copies("a", shuffled, number, seed), strict=True)) == taken
    assert sum(taken.values()) == (number if ids else 0)
    assert not ids or max(taken.values()) - min(taken.values()) <= 1
    more = dict(zip(ids, copies("a", ids, number + 1, seed), strict=True))
    assert all(more[i] >= n for i, n in taken.items())


def test_seed_and_source_choose_other_rows_and_every_row_has_the_same_chance():
    ids = [f"{i}" for i in range(1000)]
    assert len({tuple(copies(source, ids, 100, seed)) for source in "ab" for seed in (0, 1)}) == 4
    drawn = Counter(i for seed in range(50) for i, n in enumerate(copies("a", ids, 100, seed)) if n)
    assert len(drawn) > 980
    assert max(drawn.values()) < 20


def test_named_sources_are_mixed_and_the_default_changes_nothing():
    assert changes_nothing(mixture(kind="proportional"))
    assert not any(changes_nothing(m) for m in any_kind(rows=5))
    assert mixed(mixture(kind="sqrt", sources=["a"]), ["a", "b"]) == ["a"]
    assert mixed(mixture(kind="sqrt"), ["a", "b"]) == ["a", "b"]
    assert mixed(mixture(kind="fixed", shares={"b": 1}), ["a", "b"]) == ["b"]


@pytest.mark.parametrize(
    "config",
    [{"kind": "cubic"}, {"kind": "temperature", "temperature": 0}, {"kind": "fixed", "shares": {}}, {"kind": "fixed", "shares": {"a": 0}}, {"kind": "capped"},
     {"kind": "sqrt", "rows": 0}, {"kind": "sqrt", "repeats": {"a": 0}}],
)  # fmt: skip
def test_a_mixture_that_means_nothing_is_refused(config):
    with pytest.raises(ValidationError):
        mixture(**config)
