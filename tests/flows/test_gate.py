"""The gate over really trained models: the first is champion, a better one replaces it, a worse one and a tie are refused; and back again."""

import pytest

from tests.conftest import Project

pytestmark = pytest.mark.slow

LONGER = (
    "--set", "stages.instruct.lr=1e-2", "--set", "stages.instruct.schedule.steps=100",
    "--set", "stages.instruct.candidates={a: {data: {subset_seed: 1}}, b: {data: {subset_seed: 2}}}",
)  # fmt: skip
OTHER = ("--set", "stages.instruct.lr=9e-4", "--set", "stages.instruct.candidates={a: {data: {subset_seed: 1}}, b: {data: {subset_seed: 2}}}")


def test_better_is_promoted_worse_and_equal_are_refused_and_a_rollback_leads_back(project: Project) -> None:
    first = project.stockpot("run", "micro", "--json").line
    assert first["registry"]["promoted"] is True

    equal = project.stockpot("run", "micro", *OTHER, "--json").line
    assert equal["scores"]["soup"]["overall"] == first["scores"]["soup"]["overall"]
    assert equal["registry"]["promoted"] is False
    assert equal["registry"]["alias"] == "challenger"

    better = project.stockpot("run", "micro", *LONGER, "--json").line
    assert better["scores"]["soup"]["overall"] > first["scores"]["soup"]["overall"]
    assert better["registry"]["promoted"] is True
    assert better["registry"]["alias"] == "champion"

    worse = project.stockpot("run", "micro", *OTHER, "--json").line
    assert worse["scores"]["soup"]["overall"] < better["scores"]["soup"]["overall"]
    assert worse["registry"]["promoted"] is False
    assert worse["registry"]["version"] == equal["registry"]["version"]  # the same model is registered once
    assert {s["name"]: s["state"] for s in worse["steps"]}["instruct-a"] == "reused"

    back = project.stockpot("rollback", "micro", "--json").line
    assert back["version"] == first["registry"]["version"]
    again = project.stockpot("promote", "micro", *LONGER, "--json").line
    assert again["promoted"] is False  # a model that was taken back does not return by itself
    assert project.stockpot("status", "micro", "--json").line["registry"]["alias"] == "champion"
