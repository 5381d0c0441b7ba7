import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.data.packing import Packs, best_fit, share
from components.data.sampler import Order

lengths_of = st.lists(st.integers(1, 64), max_size=80)


@given(lengths_of, st.integers(64, 200))
def test_every_sample_is_in_exactly_one_row_and_no_row_is_over(lengths: list[int], capacity: int) -> None:
    rows = best_fit(lengths, capacity)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    assert all(0 < sum(lengths[i] for i in row) <= capacity for row in rows)
    assert rows == best_fit(lengths, capacity)


@given(st.lists(st.integers(1, 40), max_size=40), st.integers(40, 90))
def test_each_sample_goes_to_the_fullest_row_that_has_room(lengths: list[int], capacity: int) -> None:
    rooms: list[int] = []
    for length in sorted(lengths, reverse=True):  # the definition, slowly
        fitting = [r for r in rooms if r >= length]
        if fitting:
            rooms[rooms.index(min(fitting))] -= length
        else:
            rooms.append(capacity - length)
    assert sorted(capacity - sum(lengths[i] for i in row) for row in best_fit(lengths, capacity)) == sorted(rooms)


@given(lengths_of, st.integers(64, 200))
def test_at_most_one_row_is_half_empty(lengths: list[int], capacity: int) -> None:
    assert sum(sum(lengths[i] for i in row) * 2 <= capacity for row in best_fit(lengths, capacity)) <= 1


def test_a_row_is_filled_to_the_brim_where_lengths_allow() -> None:
    assert best_fit([5, 3, 7, 5, 2, 8], 10) == [[5, 4], [2, 1], [0, 3]]


@pytest.mark.parametrize("length", [0, 11])
def test_a_sample_that_fits_no_row_is_refused_by_number(length: int) -> None:
    with pytest.raises(ValueError, match=r"sample 1 has .* tokens; a row takes 1 to 10"):
        best_fit([3, length], 10)


@given(lengths_of, st.integers(1, 6))
def test_ranks_share_all_samples_and_about_equal_tokens(lengths: list[int], num_ranks: int) -> None:
    shares = share(lengths, num_ranks)
    assert len(shares) == num_ranks
    assert sorted(i for s in shares for i in s) == list(range(len(lengths)))
    loads = [sum(lengths[i] for i in s) for s in shares]
    assert max(loads) - min(loads) <= max(lengths, default=0)


@given(st.lists(st.integers(1, 64), min_size=1, max_size=80), st.integers(64, 200), st.integers(1, 100))
def test_packs_hold_every_sample_once_an_epoch_whatever_row_is_asked_for_first(lengths: list[int], capacity: int, window: int) -> None:
    packs = Packs(lengths, Order(len(lengths), 3, "instruct"), capacity, window)
    first = packs.per_epoch
    later = packs[first]
    epoch = [packs[i] for i in range(first)]
    assert sorted(n for row in epoch for n in row) == list(range(len(lengths)))
    assert all(sum(lengths[n] for n in row) <= capacity for row in epoch)
    assert Packs(lengths, Order(len(lengths), 3, "instruct"), capacity, window)[first] == later


def test_another_seed_and_another_epoch_pack_otherwise() -> None:
    lengths = [7 + i % 50 for i in range(300)]
    rows = [[packs[i] for i in range(packs.per_epoch)] for packs in (Packs(lengths, Order(300, seed, "instruct"), 128, 100) for seed in (0, 1))]
    assert rows[0] != rows[1]
    again = Packs(lengths, Order(300, 0, "instruct"), 128, 100)
    assert [again[i] for i in range(again.per_epoch, 2 * again.per_epoch)] != rows[0]
    totals = [sum(lengths[n] for n in row) for row in rows[0]]
    assert totals != sorted(totals, reverse=True)
