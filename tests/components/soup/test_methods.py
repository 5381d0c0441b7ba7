from itertools import pairwise, permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.soup.greedy import greedy
from components.soup.uniform import uniform

NAMES = ["a", "b", "c", "d"]
tables = st.integers(1, 4).flatmap(
    lambda k: st.fixed_dictionaries(
        {frozenset(n for i, n in enumerate(NAMES[:k]) if bits >> i & 1): st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]) for bits in range(1, 2**k)}
    )
)


def scorer(table):
    """A score function over member sets, and the list of the pools that it was asked for."""
    asked = []

    def score(members):
        asked.append(frozenset(members))
        return table[asked[-1]]

    return score, asked


@given(tables)
def test_greedy_never_falls_below_the_best_single_candidate(table):
    names = sorted({n for pool in table for n in pool})
    score, asked = scorer(table)
    chosen = greedy(names, score)
    assert table[frozenset(chosen.members)] >= max(table[frozenset([n])] for n in names)
    assert chosen.pool_scores == tuple(table[frozenset(chosen.members[: i + 1])] for i in range(len(chosen.members)))
    assert all(later >= earlier for earlier, later in pairwise(chosen.pool_scores))
    assert len(asked) == len(set(asked)) == 2 * len(names) - 1
    assert chosen.candidates == {n: table[frozenset([n])] for n in names}


@given(tables)
def test_every_candidate_that_greedy_left_out_would_have_lowered_the_pool_it_met(table):
    names = sorted({n for pool in table for n in pool})
    chosen = greedy(names, scorer(table)[0])
    order = sorted(names, key=lambda n: (-table[frozenset([n])], n))
    pool = []
    for name in order:
        before = table[frozenset(pool)] if pool else 0
        assert (name in chosen.members) == (table[frozenset([*pool, name])] >= before)
        pool += [name] if name in chosen.members else []
    assert tuple(pool) == chosen.members


@given(tables)
def test_the_order_in_which_candidates_are_listed_does_not_matter(table):
    names = sorted({n for pool in table for n in pool})
    assert len({(c := greedy(list(order), scorer(table)[0])).members + c.pool_scores for order in permutations(names)}) == 1


def test_a_tie_keeps_the_candidate():
    table = {frozenset("a"): 0.5, frozenset("b"): 0.5, frozenset("ab"): 0.5}
    assert greedy(["b", "a"], scorer(table)[0]).members == ("a", "b")


def test_a_worse_pool_loses_the_candidate_and_a_later_one_may_still_come():
    table = {frozenset("a"): 0.9, frozenset("b"): 0.8, frozenset("c"): 0.7, frozenset("ab"): 0.89, frozenset("ac"): 0.95}
    chosen = greedy(["a", "b", "c"], scorer(table)[0])
    assert chosen.members == ("a", "c")
    assert chosen.pool_scores == (0.9, 0.95)


@pytest.mark.parametrize("names", [["a"], ["c", "a", "b"]])
def test_uniform_takes_all_and_scores_once(names):
    score, asked = scorer({frozenset(names): 0.5})
    chosen = uniform(names, score)
    assert (chosen.members, chosen.pool_scores, chosen.candidates) == (tuple(names), (0.5,), {})
    assert asked == [frozenset(names)]
