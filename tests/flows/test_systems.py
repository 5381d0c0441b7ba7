"""LLaVA-1.5, its tower trained on pairs first as CLIP's is, and InternVL-1.5: as small as micro, from raw data to a registered model."""

import pytest
from PIL import Image

from tests.components.training.test_contrastive import vision
from tests.components.training.test_systems import SYSTEMS
from tests.conftest import Project

pytestmark = pytest.mark.slow


CANDIDATES = "stages.instruct.candidates={a: {data: {subset_seed: 1}}, b: {data: {subset_seed: 2}}}"
RECIPES = {"llava": [*SYSTEMS["llava"], vision("softmax"), "held_out={selection: 10}"], "internvl": SYSTEMS["internvl"]}


@pytest.mark.parametrize("system", RECIPES)
def test_a_neighbours_recipe_ends_with_a_registered_model(fresh: Project, system: str) -> None:
    overrides = [argument for override in [*RECIPES[system], CANDIDATES] for argument in ("--set", override)]
    ended = fresh.stockpot("run", "micro", *overrides, "--json")
    assert ended.code == 0, ended.err
    assert {"soup", "evaluate", "package", "promote"} <= {name for name, state in ended.states.items() if state == "ran"}
    version = ended.line["registry"]["version"]
    Image.new("RGB", (40, 40), "red").save(fresh.root / "picture.png")
    answer = fresh.stockpot("predict", "picture.png", "What color is it?", "--model", f"models:/stockpot-micro/{version}", "--json")
    assert answer.code == 0, answer.err
