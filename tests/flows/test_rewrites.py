"""A recipe with rewrites, and a judge behind an endpoint, in isolated workspaces: the annotator is a real small model behind a real server."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from components.chain import open_chain
from components.curation.prompts import prompt
from components.data.canonical import read_shards
from components.pipeline.execute import Done
from components.recipe.loader import load
from components.settings import Settings
from tests.conftest import Project, make_project
from tests.fakes.chat_server import ChatServer
from tests.fakes.tiny_model import SIDE, Learned, answers_of, learn

CAPTION = prompt("capfusion.caption").text.replace("<ImageHere>", "")
COLORS = ("red", "blue", "green")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChatServer]:
    """A model that knows what a plain picture looks like, and how to merge captions of such."""
    samples = [Learned(CAPTION, Image.new("RGB", (SIDE, SIDE), color), f"a {color} picture") for color in COLORS]
    for color in COLORS:
        merge = prompt("capfusion.merge").render(original=f"{color} thing", generated=f"a {color} picture")
        samples.append(Learned(merge, None, f"a picture of a {color} thing"))
    folder = learn(samples, tmp_path_factory.mktemp("annotator") / "model")
    with ChatServer(answers_of(folder, 16), model="tiny", sees=True, structured=False) as served:
        yield served


def run(project: Project, last: str, *overrides: str) -> dict[str, Done]:
    """Every step up to `last`, each in a workspace of its own."""
    recipe = load(Path("tests/recipes/micro.yaml"), list(overrides))
    done: dict[str, Done] = {}
    with open_chain(recipe, Settings(home=Path(".stockpot")), project.root) as chain:
        for name in chain.steps_to(last):
            done[name] = chain.pipeline.ensure(name, {a: done[a].record for a in chain.steps[name]}, lambda _: None)
        for out in [o for d in done.values() for o in d.record["outs"] if not (project.root / o["path"]).exists()]:
            chain.pipeline.content.place(out["md5"], project.root / out["path"])
    return done


@pytest.mark.slow
def test_a_source_is_rewritten_by_a_real_model_before_it_is_curated(tmp_path: Path, server: ChatServer) -> None:
    fresh = make_project(tmp_path / "fresh", {})
    annotator = f"{{base_url: '{server.base_url}', model: tiny}}"
    overrides = [
        "draw.train=40",
        f"sources.captions.rewrites=[{{kind: capfusion, vlm: {annotator}, max_tokens: 16}}, {{kind: prompt_pool}}]",
        f"curation.filters=[{{kind: image_validity}}, {{kind: grammar, judge: {annotator}, sources: [captions], max_tokens: 16}}]",
    ]
    done = run(fresh, "curate", *overrides)
    assert set(done) == {"draw", "ingest-captions", "rewrite-captions", "ingest-questions", "curate"}
    out = fresh.root / "out"
    summary = json.loads((out / "rewrite-captions/summary.json").read_text())
    fusion, pool = summary["rewrites"]
    assert fusion["annotators"] == [f"tiny at {server.base_url}"]
    assert fusion["changed"] + fusion["unjudged"] == fusion["seen"] == pool["changed"] == summary["rows_in"] > 20
    assert fusion["changed"] > 0
    before = {row["id"]: row for row in read_shards(out / "ingest-captions/data").to_pylist()}
    kept = read_shards(out / "curate/data/captions").to_pylist()
    assert len(kept) > 20
    for row in kept:
        said = {v["filter"]: v for v in row["verdicts"]}
        assert [kind for kind in said if kind != "decontamination"] == ["capfusion", "prompt_pool", "image_validity", "grammar"]
        if said["capfusion"]["action"] == "fix":
            assert said["capfusion"]["before"] == before[row["id"]]["messages"]
    reasons = {v["reason"] for row in kept for v in row["verdicts"] if v["filter"] == "grammar"}
    assert "unjudged" in reasons <= {"unjudged", ""}  # it has never seen such a form: its words fill in none, and nobody pretends that they do
    asked = len(server.requests)
    again = run(fresh, "curate", *overrides)
    assert all(d.reused for d in again.values())
    assert len(server.requests) == asked
