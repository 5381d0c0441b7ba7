"""The stages train LLaVA-1.5 and InternVL-1.5 as they train POINTS1.5, and packed rows as they train samples."""

import json

import pytest
import torch

from components import steps
from components.models.checkpoint import load_model
from components.recipe.loader import find, load
from tests.components.training.corpus import losses, weights, write_project

SYSTEMS = {
    "llava": [
        "model.vision={encoder: clip_vit, depth: 2, width: 32, heads: 2, patch: 16, select_layer: -2}",
        "model.resolution={kind: fixed, size: 32}",
        "model.connector={pool: none, merge: 1}",
        "model.llm.backbone=llama",
    ],
    "internvl": [
        "model.vision={encoder: intern_vit, depth: 1, width: 32, heads: 2, patch: 8}",
        "model.resolution={kind: tiles, size: 32, max_tiles: 4}",
        "model.connector={pool: pixel_unshuffle}",
        "model.llm.backbone=llama",
    ],
    "packed": ["stages.vision.batch={packs: 2, max_tokens: 256}", "stages.instruct.batch={packs: 2, max_tokens: 256}"],
}


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.usefixtures("project")  # this process is a rank from then on
def test_stages_train_their_groups_and_leave_the_others_as_they_were(system, tmp_path, monkeypatch):
    write_project(tmp_path, overrides=SYSTEMS[system])
    monkeypatch.chdir(tmp_path)
    for name in ("llm", "vision", "projector", "instruct-a"):
        steps.run(name)
    before, after, last = (weights(tmp_path / "out" / name / "data") for name in ("vision", "projector", "instruct-a"))
    assert {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])} == {"connector"}
    assert {name.split(".")[0] for name in before if not torch.equal(after[name], last[name])} == {"connector", "llm"}
    curve = losses(tmp_path, "vision")
    assert curve[-1] < curve[0]
    summary = json.loads((tmp_path / "out" / "vision" / "summary.json").read_text())
    assert summary["samples"] == 64 if system != "packed" else summary["samples"] > 64
    model, processor = load_model(tmp_path / "out" / "instruct-a" / "data")
    assert (model.config.pool == "none", processor.resolution.kind) == (system == "llava", {"llava": "fixed", "internvl": "tiles", "packed": "native"}[system])


@pytest.mark.parametrize("name", ["llava15", "internvl15"])
def test_the_recipes_of_the_neighbours_are_whole(name):
    recipe = load(find(name))
    assert recipe.name == name
    assert {name: set(stage.trainable) for name, stage in list(recipe.stages.items())[2:]} == {
        "llava15": {"align": {"connector"}, "instruct": {"connector", "llm"}},
        "internvl15": {"pretrain": {"vision", "connector"}, "finetune": {"vision", "connector", "llm"}},
    }[name]
