"""Training starts from public weights: towers, language models and whole checkpoints, whole or refused by name."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from ruamel.yaml import YAML
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2VLConfig, Qwen2VLForConditionalGeneration

from components import steps
from components.errors import DataError
from components.models.checkpoint import load_model
from components.models.processor import Processor
from components.models.tokenizer import train_tokenizer
from components.pipeline.graph import compile_recipe
from components.recipe.loader import load
from components.recipe.model import Model, Weights
from components.recipe.published import Published
from tests.components.models.conftest import picture, sample
from tests.components.training.corpus import MICRO, weights, write_project
from tests.components.weights.conftest import RECIPE, change_json

ROOT = Path(__file__).parents[3]
TEXT = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": 2, "rms_norm_eps": 1e-6}
TEXT["rope_parameters"] = {"rope_type": "default", "rope_theta": 1e6}
LLM = {**RECIPE.llm.model_dump(), "vocab": 292}
"""Of the checkpoints of conftest.py: as many tokens as so little text makes."""
TOWER = {"depth": 2, "embed_dim": 32, "num_heads": 2, "patch_size": 4, "hidden_size": 64}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A Qwen2.5 and a Qwen2-VL checkpoint as transformers writes them, random, in several shards."""
    folder = tmp_path_factory.mktemp("published")
    tokenizer = train_tokenizer(["what color is it ?", "红色"], 320)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        llm = Qwen2ForCausalLM(Qwen2Config(vocab_size=320, **TEXT)).eval()
        other = {**TEXT, "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 1}
        vl = Qwen2VLForConditionalGeneration(Qwen2VLConfig(text_config={"vocab_size": 320, **other}, vision_config=TOWER)).eval()
    llm.bfloat16().save_pretrained(folder / "llm", max_shard_size="60KB")
    vl.save_pretrained(folder / "vl", max_shard_size="60KB")
    tokenizer.save_pretrained(folder / "llm")
    stock = Qwen2ForCausalLM.from_pretrained(folder / "llm", dtype=torch.float32, rms_norm_eps=1e-5)
    return folder, stock.eval(), vl


def model_section(**over):
    return {**RECIPE.model_dump(mode="json"), "weights": {"vision": {"source": "vl"}, "llm": {"source": "llm"}}, **over}


@pytest.fixture
def project(published, tmp_path, monkeypatch):
    """Writes params.yaml beside copies of the checkpoints."""
    for name in ("llm", "vl"):
        shutil.copytree(published[0] / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)

    def write(**over):
        with (tmp_path / "params.yaml").open("w", encoding="utf-8") as file:
            YAML(typ="safe", pure=True).dump({"seed": 0, "model": Model.model_validate(model_section(**over)).model_dump(mode="json")}, file)
        return tmp_path

    return write


@torch.no_grad()
def test_tower_and_language_model_compute_what_transformers_own_do(published, project):
    folder = project()
    steps.run("weights")
    model, processor = load_model(folder / "out" / "weights" / "data")
    inputs = sample(processor, [picture(1)], "what color is it ?", "红色")
    ids = inputs["input_ids"][:, -8:]
    assert torch.equal(model(ids).logits, published[1](ids).logits)
    expected = published[2].model.visual(inputs["pixel_values"], inputs["image_grid_thw"]).last_hidden_state
    assert torch.equal(model.vision.patches(inputs["pixel_values"], inputs["image_grid_thw"]), expected)
    assert model.config.llm.rms_norm_eps == 1e-5  # the recipe's: POINTS1.5 went on with another than Qwen2.5's
    summary = json.loads((folder / "out" / "weights" / "summary.json").read_text())
    assert summary["drawn_tensors"] == 6  # the connector's
    assert summary["parts"]["llm"]["tensors"] == 3 + 3 * 12
    first = (folder / "out" / "weights" / "data" / "model.safetensors").read_bytes()
    steps.run("weights")
    assert (folder / "out" / "weights" / "data" / "model.safetensors").read_bytes() == first


PEAK = """
import json, resource, sys
from pathlib import Path
from components import steps
import os
os.chdir(sys.argv[1])
steps.run("weights")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
os.chdir(sys.argv[2])
steps.run("weights")
print(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))
"""


def test_memory_is_that_of_a_shard_and_not_of_the_model(project, tmp_path):
    """The small checkpoint first: libraries and buffers are then in memory. The large one has 24 shards and 390 MB in float32."""
    small, large = project(), tmp_path / "large"
    large.mkdir()
    llm = {"hidden": 512, "layers": 24, "heads": 8, "kv_heads": 8, "ffn": 2048, "vocab": 320}
    sizes = {"hidden_size": 512, "num_hidden_layers": 24, "num_attention_heads": 8, "num_key_value_heads": 8, "intermediate_size": 2048}
    with torch.device("meta"):
        model = Qwen2ForCausalLM(Qwen2Config(vocab_size=320, **{**TEXT, **sizes}))
    model.to(torch.bfloat16).to_empty(device="cpu").save_pretrained(large / "llm", max_shard_size="10MB")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tmp_path / "llm" / name, large / "llm" / name)
    shutil.copytree(tmp_path / "vl", large / "vl")
    params = {"seed": 0, "model": Model.model_validate(model_section(llm={**RECIPE.llm.model_dump(), **llm})).model_dump(mode="json")}
    with (large / "params.yaml").open("w", encoding="utf-8") as file:
        YAML(typ="safe", pure=True).dump(params, file)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ran = subprocess.run([sys.executable, "-c", PEAK, str(small), str(large)], env=environment, capture_output=True, text=True, check=True)
    size = (large / "out/weights/data/model.safetensors").stat().st_size
    assert size > 380e6
    assert int(ran.stdout) < 60e6


def test_a_part_that_is_not_named_starts_at_random(project):
    folder = project(weights={"llm": {"source": "llm"}})
    steps.run("weights")
    drawn = weights(folder / "out" / "weights" / "data")
    assert drawn["vision.blocks.0.attn.qkv.weight"].std() == pytest.approx(0.1, rel=0.1)  # model.vision.init_std
    assert json.loads((folder / "out" / "weights" / "summary.json").read_text())["drawn_tensors"] == 6 + 1 + 2 * 12


def test_of_a_large_checkpoint_only_the_shards_of_the_tower_are_needed(published, project):
    folder = project()
    index = json.loads((folder / "vl" / "model.safetensors.index.json").read_text())["weight_map"]
    kept = {file for name, file in index.items() if "visual." in name}
    for path in (folder / "vl").glob("*.safetensors"):
        if path.name not in kept:
            path.unlink()
    assert kept < set(index.values())
    steps.run("weights")
    printed = subprocess.run(f"sha256sum {' '.join(sorted(kept))} | sha256sum", shell=True, cwd=folder / "vl", capture_output=True, text=True, check=True)
    summary = json.loads((folder / "out" / "weights" / "summary.json").read_text())
    assert summary["parts"]["vision"]["digest"] == printed.stdout[:64]


@pytest.mark.parametrize("layout", ["layout_a", "layout_b", "own"])
def test_a_whole_checkpoint_comes_in_any_layout(layout, request, model, project, tmp_path):
    shutil.copytree(request.getfixturevalue(layout), tmp_path / "points")
    folder = project(weights={"whole": {"source": "points"}}, llm=LLM)
    steps.run("weights")
    found, before = weights(folder / "out" / "weights" / "data"), model.state_dict()
    assert found.keys() == before.keys()
    assert all(torch.equal(found[name], before[name] if layout == "own" else before[name].bfloat16().float()) for name in found)


WRONG = {
    "heads": ({"llm": {**model_section()["llm"], "heads": 3, "kv_heads": 1}}, r"llm/config\.json: num_attention_heads is 6, the recipe's model\.llm\.heads 3"),
    "layers": ({"llm": {**model_section()["llm"], "layers": 4}}, r"num_hidden_layers is 3, the recipe's model\.llm\.layers 4"),
    "vocabulary": ({"llm": {**model_section()["llm"], "vocab": 321}}, r"vocab_size is 320, the recipe's model\.llm\.vocab 321"),
    "rotary base": ({"llm": {**model_section()["llm"], "rope_theta": 1e4}}, r"rope_theta is 1000000\.0, the recipe's model\.llm\.rope_theta 10000\.0"),
    "patch": ({"vision": {**model_section()["vision"], "patch": 8}}, r"vl/config\.json: patch_size is 4, the recipe's model\.vision\.patch 8"),
    "tied": ({"llm": {**model_section()["llm"], "tie_embeddings": True}}, None),
    "digest": (
        {"weights": {"llm": {"source": "llm", "digest": "0" * 64}}},
        r"llm: the weights' digest is [0-9a-f]{64}, the recipe says 0{64}: .*[0-9a-f]{64}  model-00001-of-\d+\.safetensors",
    ),
    "no tower": ({"weights": {"vision": {"source": "llm"}, "llm": {"source": "llm"}}}, r"depth|tensors are missing, the first is vision"),
    "no such folder": ({"weights": {"llm": {"source": "nowhere"}}}, r"nowhere: neither a folder"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_checkpoint_that_is_not_what_the_recipe_says_is_refused(project, case):
    over, message = WRONG[case]
    project(**over)
    if message is None:  # a head of its own is of no use to a model that ties it
        steps.run("weights")
        return
    with pytest.raises(DataError, match=message):
        steps.run("weights")


def test_a_whole_checkpoint_with_another_epsilon_is_refused(layout_a, project, tmp_path):
    shutil.copytree(layout_a, tmp_path / "points")
    change_json(tmp_path / "points" / "config.json", lambda c: c["llm_config"].update(layernorm_epsilon=1e-6))
    project(weights={"whole": {"source": "points"}}, llm=LLM)
    with pytest.raises(DataError, match=r"rms_norm_eps is 1e-06, the recipe's model\.llm\.rms_eps 1e-05"):
        steps.run("weights")


def test_what_can_change_under_its_name_needs_a_digest():
    for source in ("s3://bucket/points", "org/name@main", "org/name@v1"):
        with pytest.raises(ValidationError, match="can change: give"):
            Published(source=source)
        assert Published(source=source, digest=hashlib.sha256(b"").hexdigest()).folder is None
    assert Published(source="org/name@" + "a" * 40).folder is None
    assert Published(source="checkpoints/points").folder == "checkpoints/points"
    with pytest.raises(ValidationError, match="leave vision and llm out"):
        Weights(whole=Published(source="a"), llm=Published(source="b"))
    with pytest.raises(ValidationError, match="the tokenizer comes with them"):
        Weights(vision=Published(source="b"))


def test_stages_without_one_before_them_start_from_public_weights():
    section = "model.weights={llm: {source: qwen}, vision: {source: 'org/name@" + "0" * 40 + "'}}"
    stages = compile_recipe(load(MICRO, [section])).stages
    assert [d for d in stages["weights"]["deps"] if not d.startswith("components/")] == ["qwen"]
    assert {name for name, entry in stages.items() if "out/weights/data" in entry["deps"]} == {"llm"}


def test_a_stage_trains_on_from_public_weights(published, tmp_path, monkeypatch):
    shutil.copytree(published[0] / "llm", tmp_path / "llm")
    overrides = ["model.weights={llm: {source: llm}}", "model.llm={hidden: 48, layers: 3, heads: 6, kv_heads: 2, ffn: 80, vocab: 320}"]
    write_project(tmp_path, overrides=overrides)
    monkeypatch.chdir(tmp_path)
    steps.run("weights")
    steps.run("llm")
    before, after = (weights(tmp_path / "out" / name / "data") for name in ("weights", "llm"))
    assert {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])} == {"llm"}
    drift = (after["llm.lm_head.weight"] - before["llm.lm_head.weight"]).abs().max()
    assert 0 < drift < 0.2
    assert Processor.from_pretrained(tmp_path / "out" / "llm" / "data").text_ids("红色") == Processor.from_pretrained(
        tmp_path / "out" / "weights" / "data"
    ).text_ids("红色")
