import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.evaluation.curves import LATE, Curve, charts, outlook, read
from components.pages.scale import BOTTOM, LEFT, RIGHT, TOP

LOSS = [(float(i), 3.0 / i) for i in range(1, 301)]


def held(*accuracies):
    points = [(100.0 * (i + 1), a) for i, a in enumerate(accuracies)]
    return Curve(LOSS, [(step, 1 - a) for step, a in points], points)


def test_the_records_of_a_stage_are_read_with_and_without_held_out_rows(tmp_path):
    (tmp_path / "loss.csv").write_text("step,loss,lr\n1,2.5,0.1\n2,1.5,0.05\n")
    assert read(tmp_path) == Curve([(1, 2.5), (2, 1.5)], [], [])
    (tmp_path / "curve.csv").write_text("step,samples,held_loss,held_accuracy\n0,0,3.5,0.1\n2,64,2.5,0.25\n")
    assert read(tmp_path) == Curve([(1, 2.5), (2, 1.5)], [(0, 3.5), (2, 2.5)], [(0, 0.1), (2, 0.25)])
    assert read(tmp_path).steps == 2


@pytest.mark.parametrize(
    ("accuracies", "says"),
    [
        ((0.1, 0.4, 0.6, 0.7, 0.8, 0.9), "still rises, by 30.0 ± 0.0 points over the second half of the training: more time would probably help"),
        ((0.1, 0.8, 0.9, 0.9, 0.902, 0.904), r"level, \+0.4 "),
        ((0.1, 0.9, 0.9, 0.8, 0.7, 0.6), "falls, by 30.0 "),
        ((0.1, 0.9, 0.5, 0.3, 0.1, 0.9, 0.2), "level, "),
        ((0.5, 0.9), "no curve"),
        ((0.9,), "no curve"),
        ((), "no curve"),
    ],
)
def test_the_outlook_says_what_the_late_part_of_the_curve_does_beyond_its_noise(accuracies, says):
    assert re.search(says, outlook({"a": held(*accuracies)}))


def test_the_outlook_is_one_slope_for_all_candidates():
    rising, level = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5), (0.9, 0.9, 0.9, 0.9, 0.9, 0.9)
    assert "level" in outlook({"a": held(*rising), "b": held(*rising[::-1]), "c": held(*level)})
    assert "rises" in outlook({"a": held(*rising), "b": held(*rising), "c": held(*level)})


@given(st.lists(st.floats(0, 1), min_size=6, max_size=12))
def test_the_slope_is_the_one_of_numpy(values):
    line = [(10.0 * (i + 1), v) for i, v in enumerate(values)]
    late = [(x / line[-1][0], y) for x, y in line if x >= LATE * line[-1][0]]
    slope = np.polynomial.Polynomial.fit(*zip(*late, strict=True), 1).convert().coef
    changed = re.search(r"([0-9.]+) ±", outlook({"a": Curve(LOSS, [], line)}))
    assert changed is not None
    assert float(changed[1]) == pytest.approx(abs(50 * (slope[1] if len(slope) > 1 else 0)), abs=0.051)


def points(series):
    return [tuple(map(float, p.split(","))) for p in series.path.split()]


def test_charts_lie_inside_their_frame_and_more_accuracy_is_higher_up():
    accuracy, loss = charts({"a": held(0.1, 0.4, 0.7), "b": Curve(LOSS, [], [])})
    assert [(s.name, s.colour, s.held_out) for s in loss.series] == [("a", 0, False), ("b", 1, False), ("a", 0, True)]
    for chart in (accuracy, loss):
        for series in chart.series:
            assert all(LEFT <= x <= RIGHT and TOP <= y <= BOTTOM for x, y in points(series))
        assert all(TOP <= y <= BOTTOM for y, _ in chart.y_ticks)
    heights = [y for _, y in points(accuracy.series[0])]
    assert heights == sorted(heights, reverse=True)


def test_a_long_noisy_loss_is_drawn_as_means_of_blocks():
    (chart,) = charts({"a": Curve([(float(i), float(i % 2) + 1) for i in range(1, 1201)], [], [])})
    assert len(points(chart.series[0])) == 30
    assert len({y for _, y in points(chart.series[0])}) == 1


@pytest.mark.parametrize("loss", [[(1.0, 2.0)], [(1.0, 2.0), (2.0, 2.0)], [(1.0, 0.0), (2.0, 0.0)]])
def test_a_curve_of_one_value_can_be_drawn(loss):
    (chart,) = charts({"a": Curve(loss, [], [])})
    assert all(TOP <= y <= BOTTOM for _, y in points(chart.series[0]))
