import io

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from components.data.benchmark import Question
from components.evaluation import records
from components.evaluation.judging import judge
from components.evaluation.plots import SOUP, plot
from components.evaluation.scores import document, model_scores


def judged(right, n=20):
    questions = [Question("b.tsv: row", i, None, "q", "red", ["color", "count"][i % 2]) for i in range(n)]
    return judge(questions, ["red"] * right + [""] * (n - right), "exact-1")


def content(soup, **candidates):
    scores = {name: model_scores("d", {"shapes": judged(right)}, {"shapes": 1.0}) for name, right in {"soup": soup, **candidates}.items()}
    return document(scores.pop("soup"), scores, {"shapes": 1.0}, "exact-1")


def test_records_hold_every_answer_and_their_bytes_repeat(tmp_path):
    for name in ("one", "two"):
        records.write(tmp_path / name, [("soup", "shapes", judged(3, 4)), ("a", "shapes", judged(0, 4))])
    table = pq.read_table(tmp_path / "one")
    assert table.schema.equals(records.SCHEMA)
    assert table.filter(table["model"].to_numpy(zero_copy_only=False) == "soup")["correct"].to_pylist() == [True, True, True, False]
    assert table["failed"].to_pylist() == [False, False, False, True] + [True] * 4
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_records_of_no_answers_are_a_table_without_rows(tmp_path):
    records.write(tmp_path / "none", [("soup", "shapes", [])])
    assert pq.read_table(tmp_path / "none").num_rows == 0


def soup_share(png):
    """Share of the picture's pixels that have the soup's colour."""
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    return (pixels == [int(SOUP[i : i + 2], 16) for i in (1, 3, 5)]).all(-1).mean()


def test_the_bars_grow_with_the_scores_and_the_bytes_repeat(tmp_path):
    pictures = []
    for soup in (5, 15, 15):
        plot(content(soup, a=10, b=12), tmp_path / "scores.png")
        pictures.append((tmp_path / "scores.png").read_bytes())
    assert pictures[1] == pictures[2]
    assert b"matplotlib" not in pictures[1].lower()
    assert soup_share(pictures[1]) / soup_share(pictures[0]) == pytest.approx(3, rel=0.1)


def test_the_users_matplotlib_style_does_not_change_the_plot(tmp_path):
    import matplotlib as mpl

    plot(content(15, a=10), tmp_path / "plain.png")
    with mpl.rc_context({"axes.facecolor": "black", "font.size": 30}):
        plot(content(15, a=10), tmp_path / "styled.png")
        assert mpl.rcParams["font.size"] == 30
    assert (tmp_path / "plain.png").read_bytes() == (tmp_path / "styled.png").read_bytes()


def test_a_soup_without_candidates_and_many_candidates_are_drawn(tmp_path):
    for candidates in ({}, {f"candidate_{i}": i for i in range(12)}):
        plot(content(15, **candidates), tmp_path / "scores.png")
        assert Image.open(tmp_path / "scores.png").width > 300
