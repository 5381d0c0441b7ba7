import pytest

from components.recipe.training import Schedule
from components.training.schedule import factor, num_steps


def rates(total: int = 20, **keys: object) -> list[float]:
    schedule = Schedule.model_validate({"steps": total, **keys})
    return [factor(schedule, step, total) for step in range(total)]


@pytest.mark.parametrize("kind", ["cosine", "linear", "constant"])
def test_the_rate_rises_in_a_line_over_the_warmup_and_reaches_the_peak(kind: str) -> None:
    found = rates(kind=kind, warmup=0.25)
    assert found[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert max(found) == found[5] == 1.0


@pytest.mark.parametrize("kind", ["cosine", "linear"])
def test_the_rate_falls_towards_its_lowest_ratio_and_not_below(kind: str) -> None:
    found = rates(kind=kind, warmup=0.1, min_ratio=0.1)
    assert found[2:] == sorted(found[2:], reverse=True)
    assert 0.1 < found[-1] < 0.2


def test_halfway_through_a_cosine_the_rate_is_half() -> None:
    assert rates(warmup=0)[10] == pytest.approx(0.5)


def test_a_constant_rate_stays_at_the_peak() -> None:
    assert rates(kind="constant", warmup=0) == [1.0] * 20


@pytest.mark.parametrize(("epochs", "steps"), [(1.0, 13), (2.0, 25), (0.5, 7), (0.01, 1)])
def test_epochs_become_steps_rounded_up(epochs: float, steps: int) -> None:
    assert num_steps(Schedule(epochs=epochs), num_rows=100, rows_per_step=8) == steps
