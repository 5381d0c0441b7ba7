import re

import pytest

from components.evaluation.curves import BOTTOM, LEFT, RIGHT, TOP, Curve, charts, outlook, read

LOSS = [(float(i), 3.0 / i) for i in range(1, 301)]


def held(*accuracies):
    points = [(100.0 * i, a) for i, a in enumerate(accuracies)]
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
        ((0.1, 0.4, 0.7, 0.9), "rises, by 20.0 points over the last third of the training: more time would probably help"),
        ((0.1, 0.8, 0.9, 0.905), r"level, \+0.5 points"),
        ((0.1, 0.9, 0.9, 0.8), "falls, by 10.0 points"),
        ((0.9,), "no curve"),
        ((), "no curve"),
    ],
)
def test_the_outlook_says_what_the_late_part_of_the_curve_does(accuracies, says):
    assert re.search(says, outlook({"a": held(*accuracies)}))


def test_the_outlook_is_the_mean_of_the_candidates():
    assert "rises, by 5.0 points" in outlook({"a": held(0.5, 0.5, 0.6, 0.7), "b": held(0.5, 0.5, 0.6, 0.6), "none": Curve(LOSS, [], [])})


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
    assert len(points(chart.series[0])) == 60
    assert len({y for _, y in points(chart.series[0])}) == 1


@pytest.mark.parametrize("loss", [[(1.0, 2.0)], [(1.0, 2.0), (2.0, 2.0)], [(1.0, 0.0), (2.0, 0.0)]])
def test_a_curve_of_one_value_can_be_drawn(loss):
    (chart,) = charts({"a": Curve(loss, [], [])})
    assert all(TOP <= y <= BOTTOM for _, y in points(chart.series[0]))
