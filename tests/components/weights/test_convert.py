import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from components.errors import DataError
from components.models.config import VLMConfig
from components.weights.checkpoint import load_points, open_checkpoint
from components.weights.convert import convert
from components.weights.parity import layer_a, layer_difference, rms_norm
from components.weights.served import loads_as, served_names
from components.weights.shards import SHARD_BYTES
from tests.components.models.conftest import picture, sample
from tests.components.weights.conftest import change_json, tensors


def files(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_there_and_back_is_bit_equal_file_by_file(layout_a, layout_b, tmp_path):
    convert("B", layout_a, tmp_path / "b", shard_bytes=60_000)
    assert files(tmp_path / "b") == files(layout_b)
    convert("A", tmp_path / "b", tmp_path / "a", shard_bytes=60_000)
    assert files(tmp_path / "a") == files(layout_a)


def test_layout_a_has_the_published_names_and_the_dead_merger_travels_along(layout_a, layout_b):
    a, b = tensors(layout_a), tensors(layout_b)
    first = {name.removeprefix("llm.lm.layers.0.") for name in a if name.startswith("llm.lm.layers.0.")}
    attention = {f"attention.{part}.{kind}" for part in ("query_dense", "key_value_dense") for kind in ("weight", "bias")} | {"attention.dense.weight"}
    assert first == attention | {"input_layernorm.weight", "post_attention_layernorm.weight", "mlp.dense_h_to_4h.weight", "mlp.dense_4h_to_h.weight"}
    outside = {name for name in a if name.startswith("llm.") and ".layers." not in name}
    assert outside == {"llm.lm.embed_in.weight", "llm.embed_out.weight", "llm.lm.final_layer_norm.weight"}
    dead = [name for name in b if name.startswith("vision_encoder.merger.")]
    assert len(dead) == 6
    assert all(torch.equal(a[name], b[name]) for name in dead)
    total = sum(t.numel() * t.element_size() for t in a.values())
    assert json.loads((layout_a / "model.safetensors.index.json").read_text())["metadata"]["total_size"] == total


def test_the_language_models_logits_by_layout_as_mathematics_are_those_of_qwen2(layout_a, layout_b):
    model, processor = load_points(layout_b, torch.float32)
    ids = torch.tensor([processor.text_ids("what color is it ? 红色")])
    w = {name: t.float() for name, t in tensors(layout_a).items()}
    hidden = w["llm.lm.embed_in.weight"][ids]
    for i in range(3):
        prefix = f"llm.lm.layers.{i}."
        hidden = layer_a(hidden, {n.removeprefix(prefix): t for n, t in w.items() if n.startswith(prefix)}, model.config)
    logits = F.linear(rms_norm(hidden[0], w["llm.lm.final_layer_norm.weight"], 1e-5), w["llm.embed_out.weight"])
    with torch.no_grad():
        expected = model(ids).logits[0]
    assert (logits - expected).abs().max() / expected.abs().max() < 2e-6
    swapped = {n: torch.cat(t.chunk(2)[::-1]) if "dense_h_to_4h" in n else t for n, t in w.items()}
    prefix = "llm.lm.layers.0."
    first = {n.removeprefix(prefix): t for n, t in swapped.items() if n.startswith(prefix)}
    embedded = w["llm.lm.embed_in.weight"][ids]
    right = layer_a(embedded, {n.removeprefix(prefix): t for n, t in w.items() if n.startswith(prefix)}, model.config)
    assert (layer_a(embedded, first, model.config) - right).abs().max() > 1e-2


@torch.no_grad()
def test_all_layouts_load_as_one_model_with_a_difference_of_zero(model, processor, own, layout_a, layout_b):
    inputs = sample(processor, [picture(1)], "what color is it ?", "红色")
    from_own, from_a, from_b = (load_points(folder, torch.float32) for folder in (own, layout_a, layout_b))
    assert torch.equal(from_own[0](**inputs).logits, model(**inputs).logits)
    assert torch.equal(from_a[0](**inputs).logits, from_b[0](**inputs).logits)
    assert (from_b[0](**inputs).logits - model(**inputs).logits).abs().max() > 0  # bf16
    assert {p.dtype for p in load_points(layout_a)[0].parameters()} == {torch.bfloat16}
    assert from_a[1].settings() == processor.settings()
    assert from_a[1].encode([{"role": "user", "content": "<|im_end|> x"}], []) == processor.encode([{"role": "user", "content": "<|im_end|> x"}], [])
    assert from_a[0].config.llm.rms_norm_eps == from_b[0].config.llm.rms_norm_eps == 1e-5


def test_layout_as_junk_token_ids_are_not_believed(layout_a, processor, tmp_path):
    shutil.copytree(layout_a, tmp_path / "a")
    change_json(tmp_path / "a" / "config.json", lambda c: (c["llm_config"].update(bos_token_id=0, eos_token_id=[2, 3]), c.pop("image_token_id")))
    figures = convert("B", tmp_path / "a", tmp_path / "b")
    config = json.loads((tmp_path / "b" / "config.json").read_text())
    assert (config["image_token_id"], config["llm_config"]["eos_token_id"]) == (processor.image_token_id, processor.stop_token_id)
    assert json.loads((tmp_path / "b" / "generation_config.json").read_text())["eos_token_id"] == processor.stop_token_id
    assert (config["llm_config"]["rms_norm_eps"], config["llm_config"]["rope_theta"], config["llm_config"]["num_key_value_heads"]) == (1e-5, 1e6, 2)
    assert (figures["from"], figures["to"], figures["tensors_bit_equal"]) == ("A", "B", len(tensors(layout_a)) + 3 * 3)
    assert figures["layer_difference"] < 2e-6


def test_layout_b_is_what_sglang_loads(layout_b):
    checkpoint = open_checkpoint(layout_b)
    assert {loads_as(name) for name in tensors(layout_b)} == served_names(checkpoint.config)
    assert len(served_names(VLMConfig(vision={"depth": 32}, llm={"model_type": "qwen2", "num_hidden_layers": 28}))) == 4 + 28 * 7 + 32 * 12 + 12
    assert layer_difference(checkpoint, 2) < 2e-6


def test_a_shard_is_never_larger_than_asked_unless_one_tensor_is(layout_b):
    sizes = [(path.stat().st_size, len(load_file(path))) for path in layout_b.glob("*.safetensors")]
    assert len(sizes) > 3
    assert all(size < 60_000 + 20_000 or number == 1 for size, number in sizes)
    assert SHARD_BYTES == 5_000_000_000


def test_our_own_folder_comes_back_as_it_was(own, layout_a, tmp_path):
    convert("A", own, tmp_path / "a")
    convert("stockpot", tmp_path / "a", tmp_path / "own")
    again, before = files(tmp_path / "own"), files(own)
    assert {name for name in before if again[name] != before[name]} == {"config.json"}
    configs = [json.loads(made["config.json"]) for made in (again, before)]
    for part in ("vision", "llm"):  # public configurations do not say how weights were drawn
        different = {key for key, value in configs[1][part].items() if configs[0][part][key] != value}
        assert different <= {"initializer_range", "dtype"}
    convert("stockpot", layout_a, tmp_path / "from a")
    assert not any("merger" in name for name in tensors(tmp_path / "from a"))


def test_a_target_that_exists_is_left_alone_and_a_failure_leaves_nothing(own, layout_b, tmp_path):
    with pytest.raises(DataError, match=r"own: exists already"):
        convert("B", layout_b, own)
    shutil.copytree(layout_b, tmp_path / "b")
    damage_tensor(tmp_path / "b", lambda weights, name: weights.pop(name))
    with pytest.raises(DataError):
        convert("A", tmp_path / "b", tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


KEY = "llm.model.layers.1.self_attn.k_proj.weight"


def damage_tensor(folder, change):
    """Changes the shard that holds KEY (layout B) or its fused form (layout A)."""
    for path in sorted(folder.glob("*.safetensors")):
        weights = load_file(path)
        name = next((n for n in weights if n in (KEY, "llm.lm.layers.1.attention.key_value_dense.weight")), None)
        if name:
            change(weights, name)
            save_file(weights, path)
            return path.name
    raise AssertionError


def shard(folder):
    return sorted(folder.glob("*.safetensors"))[2]


DAMAGE = {
    "missing": (
        lambda f: damage_tensor(f, lambda w, n: w.pop(n)),
        r"model-\d+-of-\d+\.safetensors: llm\..*layers\.1\.\S+(k_proj|key_value_dense)\.weight is missing",
    ),
    "extra": (lambda f: damage_tensor(f, lambda w, n: w.update(stray=torch.ones(2).bfloat16())), r"model-\d+-of-\d+\.safetensors: 1 tensors .* first is stray"),
    "mis-shaped": (
        lambda f: damage_tensor(f, lambda w, n: w.update({n: w[n][:-1].clone()})),
        r"model-\d+-of-\d+\.safetensors: llm\..*layers\.1\.\S+(k_proj|key_value_dense)\.weight has the shape \[(15|31), 48\].*\[(16|32), 48\]",
    ),
    "integers": (lambda f: damage_tensor(f, lambda w, n: w.update({n: w[n].to(torch.int8)})), r"model-\d+-of-\d+\.safetensors: llm\.\S+ has the dtype I8"),
    "cut off": (lambda f: os.truncate(shard(f), 900), r"model-00003-of-\d+\.safetensors: cannot be read as safetensors"),
    "no shard": (lambda f: shard(f).unlink(), r"model-00003-of-\d+\.safetensors: the weights are missing"),
    "broken index": (lambda f: (f / "model.safetensors.index.json").write_text("[]"), r"index\.json: cannot be read as an index"),
    "a path in the index": (
        lambda f: change_json(f / "model.safetensors.index.json", lambda c: c["weight_map"].update(x="../b/model.safetensors")),
        r"index\.json: '\.\./b/model\.safetensors' is not the name of a file beside it",
    ),
    "no key": (lambda f: change_json(f / "config.json", lambda c: c.pop("vision_config")), r"config\.json: the key 'vision_config' is missing"),
    "a wrong number of layers": (
        lambda f: change_json(f / "config.json", lambda c: c["llm_config"].update(num_layers=4, num_hidden_layers=4)),
        r": \d+ tensors are missing, the first is llm\.\S*layers\.3\.",
    ),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), r"the tokenizer cannot be read"),
    "no preprocessor": (lambda f: (f / "preprocessor_config.json").unlink(), r"preprocessor_config\.json: cannot be read"),
}


@pytest.mark.parametrize("layout", ["A", "B"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_refused_with_file_and_tensor(layout_a, layout_b, tmp_path, layout, damage):
    shutil.copytree(layout_a if layout == "A" else layout_b, tmp_path / "c")
    act, message = DAMAGE[damage]
    act(tmp_path / "c")
    with pytest.raises(DataError, match=message):
        open_checkpoint(tmp_path / "c")


def test_what_is_no_points15_checkpoint_is_refused(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        open_checkpoint(tmp_path / "none")
    save_file({"bert.embeddings": torch.ones(2)}, tmp_path / "model.safetensors")
    with pytest.raises(DataError, match=r"'bert.embeddings' are in none of the layouts"):
        open_checkpoint(tmp_path)
