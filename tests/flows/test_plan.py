"""`stockpot recipe check --plan`."""

import json
from pathlib import Path

import pytest

from components.errors import RecipeError
from flows.cli import app

PAGE = Path("docs/how-to/finetune-points.md")


def test_the_plan_is_what_the_page_shows(capsys):
    app(["recipe", "check", "points15", "--plan", "--profile", "gpu"], result_action="return_value")
    assert capsys.readouterr().out.split("\n\n")[1] in PAGE.read_text(encoding="utf-8")


def test_the_plan_as_json_says_on_what_machine(capsys):
    asked = ["--plan", "--gpus", "4", "--zero", "3", "--mfu", "0.5", "--tflops", "300", "--json"]
    app(["recipe", "check", "tests/recipes/micro.yaml", *asked], result_action="return_value")
    plan = json.loads(capsys.readouterr().out)["plan"]
    runs = plan.pop("runs")
    assert plan == {"gpus": 4, "zero_stage": 3, "precision": "fp32", "tflops": 300.0, "mfu": 0.5}
    assert [run["name"] for run in runs][-3:] == ["instruct-a", "instruct-b", "instruct-c"]
    assert all(run["gpu_hours"] > 0 and run["memory_bytes"] > 0 and run["steps"] for run in runs)


@pytest.mark.parametrize("wrong", [["--gpus", "0"], ["--mfu", "1.5"], ["--tflops", "0"]])
def test_a_machine_that_there_cannot_be_is_refused(wrong):
    with pytest.raises(RecipeError, match="at least one GPU, a utilisation above 0"):
        app(["recipe", "check", "tests/recipes/micro.yaml", "--plan", *wrong], result_action="return_value")
