"""`stockpot data card` and `data why` in a project whose chain has run: from the checkout, and from the cache when nothing is checked out."""

import json
import shutil

import pytest

from components.data.canonical import read_shards
from tests.conftest import Project

pytestmark = pytest.mark.slow


def test_card_and_why_answer_from_the_checkout_and_from_the_cache(project: Project) -> None:
    dropped = read_shards(project.root / "out/curate/data/dropped", ["id", "source", "verdicts"]).to_pylist()[0]
    name = f"{dropped['source']}/{dropped['id']}"
    card, why = project.stockpot("data", "card", "--json"), project.stockpot("data", "why", name, "--json")
    assert card.code == why.code == 0
    counts = json.loads((project.root / "out/curate/counts.json").read_text())
    assert card.line["path"] == "out/curate/card.html"
    assert [f["kind"] for f in card.line["filters"]] == [f["kind"] for f in counts["filters"]]
    (fate,) = why.line["fates"]
    assert (fate["end"], fate["reason"]) == ("dropped", dropped["verdicts"][-1]["reason"])
    told = project.stockpot("data", "why", name).out
    assert f"dropped by {dropped['verdicts'][-1]['filter']}: out/curate/data/dropped/part-00000.parquet, row 1" in told

    shutil.rmtree(project.root / "out")
    again = project.stockpot("data", "why", name, "micro", "--json")
    assert again.code == 0, again.err
    assert again.line == why.line
    elsewhere = project.stockpot("data", "card", "micro", "--json")
    assert elsewhere.line == {**card.line, "path": ".stockpot/cards/micro.html"}
    assert (project.root / ".stockpot/cards/micro.html").is_file()
    assert not (project.root / "out").exists()


def test_an_unknown_sample_and_a_curation_that_has_not_run_end_with_a_sentence(project: Project, fresh: Project) -> None:
    unknown = project.stockpot("data", "why", "00000x")
    assert unknown.code == 2
    assert "00000x: no source has a sample of this id; did you mean" in unknown.err
    for command in (["card"], ["why", "1"]):
        early = fresh.stockpot("data", *command, "micro")
        assert early.code == 2
        assert "micro: the step curate is not done yet: run `stockpot run micro` first" in early.err
