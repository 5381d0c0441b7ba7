from hypothesis import given
from hypothesis import strategies as st

from components.data.sampler import Order, in_subset


@given(st.integers(1, 300), st.integers(0, 5), st.integers(0, 3))
def test_every_epoch_shows_every_row_once(num_rows: int, seed: int, epoch: int) -> None:
    order = Order(num_rows, seed, "instruct-a")
    assert sorted(order[epoch * num_rows + i] for i in range(num_rows)) == list(range(num_rows))


@given(st.integers(1, 10**9), st.integers(0, 10**12))
def test_any_position_can_be_asked_for_alone(num_rows: int, position: int) -> None:
    order = Order(num_rows, 0, "llm")
    assert 0 <= order[position] < num_rows
    assert order[position] == Order(num_rows, 0, "llm")[position]


def test_epochs_seeds_and_stages_have_orders_of_their_own() -> None:
    def rows(start: int, seed: int = 0, stage: str = "llm") -> list[int]:
        order = Order(100, seed, stage)
        return [order[i] for i in range(start, start + 100)]

    orders = [rows(0), rows(100), rows(0, seed=1), rows(0, stage="vision"), list(range(100))]
    assert len({tuple(o) for o in orders}) == len(orders)


def test_the_order_is_the_same_in_every_version_of_this_code() -> None:
    order = Order(10, 0, "instruct-a")
    assert [order[i] for i in range(10)] == [5, 1, 9, 0, 4, 6, 7, 2, 8, 3]


def test_the_first_row_of_an_order_is_spread_evenly() -> None:
    counts = [0] * 7
    for seed in range(7000):
        counts[Order(7, seed, "x")[0]] += 1
    assert all(850 < c < 1150 for c in counts)


def test_a_share_is_about_as_large_as_asked_for_and_grows_with_percent() -> None:
    ids = [f"row-{i}" for i in range(4000)]
    shares = {p: {i for i in ids if in_subset("web", i, p, 3)} for p in (1, 30, 70, 100)}
    assert shares[1] < shares[30] < shares[70] < shares[100] == set(ids)
    assert 1100 < len(shares[30]) < 1300
    assert shares[30] != {i for i in ids if in_subset("web", i, 30, 4)} != {i for i in ids if in_subset("other", i, 30, 4)}
