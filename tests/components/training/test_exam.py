"""The learning curve: what an exam counts, and that it is the same however a run came about."""

import csv
import shutil
from pathlib import Path

import pytest
import torch

from components import steps
from components.training.next_token import right_answers
from tests.components.training.corpus import write_project

N = -100


def test_an_answer_is_right_when_all_its_tokens_are() -> None:
    labels = torch.tensor([[N, N, 5, 6, N, N, 7, N], [N, 1, 2, N, N, N, 3, 4]])
    likeliest = torch.roll(labels, -1, 1)
    assert right_answers(likeliest, labels) == (4, 4)
    likeliest[0, 2] = 9  # foretells the 6
    assert right_answers(likeliest, labels) == (3, 4)
    likeliest[0, 1] = 9  # the 5, of the same answer
    assert right_answers(likeliest, labels) == (3, 4)
    likeliest[1, 6] = 9
    assert right_answers(likeliest, labels) == (2, 4)
    assert right_answers(torch.full_like(labels, 0), labels) == (0, 4)
    assert right_answers(labels, torch.full_like(labels, N)) == (0, 0)


@pytest.fixture
def workspace(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(project, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def curve(name: str) -> list[dict[str, float]]:
    with Path("out", name, "curve.csv").open(encoding="utf-8") as f:
        return [{k: float(v) for k, v in line.items()} for line in csv.DictReader(f)]


def test_a_stage_leaves_about_ten_points_of_a_curve_that_goes_down(workspace: Path) -> None:
    held = ["held_out={selection: 20}", "stages.vision.schedule={steps: 40}"]
    write_project(workspace, overrides=held)
    for name in ("llm", "vision"):
        steps.run(name)
    points = curve("vision")
    assert [p["step"] for p in points] == [4 * i for i in range(1, 11)]
    assert [p["samples"] for p in points] == [32 * i for i in range(1, 11)]
    assert points[-1]["held_loss"] < points[0]["held_loss"] - 0.3
    assert all(0 <= p["held_accuracy"] <= 1 for p in points)
    assert len(curve("llm")) == 8  # a stage of eight steps has eight points


def test_rows_that_are_held_out_are_not_trained_on(workspace: Path) -> None:
    write_project(workspace, overrides=["held_out={selection: 50}", "stages.instruct.data={sources: [questions], percent: 100}"], number=40)
    steps.run("instruct-a")
    assert curve("instruct-a")
    whole = Path("out/instruct-a/loss.csv").read_bytes()
    write_project(workspace, overrides=["stages.instruct.data={sources: [questions], percent: 100}"], number=40)
    steps.run("instruct-a")
    assert Path("out/instruct-a/loss.csv").read_bytes() != whole
    assert not Path("out/instruct-a/curve.csv").exists()


def test_an_exam_changes_nothing_in_what_is_learned(workspace: Path) -> None:
    from components.training import rank

    write_project(workspace, overrides=["held_out={selection: 20}"])
    steps.run("projector")
    weights, losses = (Path("out/projector", n).read_bytes() for n in ("data/model.safetensors", "loss.csv"))
    before, rank.EXAM_ROWS = rank.EXAM_ROWS, 1
    try:
        steps.run("projector")
    finally:
        rank.EXAM_ROWS = before
    assert Path("out/projector/data/model.safetensors").read_bytes() == weights
    assert Path("out/projector/loss.csv").read_bytes() == losses
