"""`from_pretrained` as transformers has it: a device for every group, offloading, attention implementations."""

from importlib.util import find_spec

import pytest
import torch

from components.models.build import build_model, build_processor
from components.models.checkpoint import load_model, save_model
from components.models.vlm import VLMForConditionalGeneration
from components.recipe.loader import load
from tests.components.models.conftest import picture, sample
from tests.components.training.corpus import MICRO
from tests.components.training.test_systems import SYSTEMS

GROUPS = {"vision": "cpu", "connector": "cpu", "llm": "cpu"}
LAYERS = {"vision": "cpu", "connector": "cpu", "llm.model.embed_tokens": "cpu", "llm.model.layers.0": "disk"}
LAYERS |= {"llm.model.norm": "cpu", "llm.model.rotary_emb": "cpu", "llm.lm_head": "cpu"}
MAPS = {
    "auto": "auto",
    "one device": {"": "cpu"},
    "groups": GROUPS,
    "tower on disk": GROUPS | {"vision": "disk"},
    "language model on disk": GROUPS | {"llm": "disk"},
    "a layer on disk": LAYERS,
}
BLOCKS = {"points": {"Qwen2VLVisionBlock", "Qwen2DecoderLayer"}, "llava": {"CLIPEncoderLayer", "LlamaDecoderLayer"}}
BLOCKS |= {"internvl": {"InternVLVisionLayer", "LlamaDecoderLayer"}}


@pytest.fixture(scope="module", params=[(system, tied) for system in BLOCKS for tied in (True, False)], ids=lambda p: f"{p[0]}-{'tied' if p[1] else 'untied'}")
def saved(request, tokenizer, tmp_path_factory):
    """A system's model folder, inputs, and the outputs and answer of the model as it was."""
    system, tied = request.param
    config = load(MICRO, [*SYSTEMS.get(system, []), f"model.llm.tie_embeddings={str(tied).lower()}"]).model
    model, processor = build_model(config, tokenizer, 0).eval(), build_processor(config, tokenizer)
    folder = tmp_path_factory.mktemp("saved")
    save_model(model, processor, folder)
    inputs = sample(processor, [picture(1), picture(2)], "what color is it ?", "红色")
    with torch.no_grad():
        return system, folder, inputs, model(**inputs), answer(model, inputs)


def answer(model, inputs):
    prompt = {name: value for name, value in inputs.items() if name != "labels"}
    return model.generate(**prompt, max_new_tokens=3, do_sample=False)


@pytest.mark.parametrize("where", MAPS)
@torch.no_grad()
def test_a_model_computes_the_same_wherever_its_groups_are(saved, where, tmp_path):
    _, folder, inputs, expected, words = saved
    model = VLMForConditionalGeneration.from_pretrained(folder, device_map=MAPS[where], offload_folder=tmp_path).eval()
    found = model(**inputs)
    assert torch.equal(found.logits, expected.logits)
    assert torch.equal(found.loss, expected.loss)
    assert torch.equal(answer(model, inputs), words)
    on_disk = {name for name, p in model.named_parameters() if p.device.type == "meta"}
    places = {name for name, place in model.hf_device_map.items() if place == "disk"} if on_disk else set()
    assert on_disk == {name for name, _ in model.named_parameters() if any(name.startswith(place) for place in places)}
    assert bool(on_disk) == ("disk" in where)
    assert all(buffer.device.type == "cpu" for name, buffer in model.named_buffers() if not any(name.startswith(place) for place in places))


@torch.no_grad()
def test_what_does_not_fit_into_memory_is_put_on_disk_in_whole_blocks(saved, tmp_path):
    system, folder, inputs, expected, _ = saved
    size = (folder / "model.safetensors").stat().st_size
    model = VLMForConditionalGeneration.from_pretrained(folder, device_map="auto", max_memory={"cpu": size * 4 // 5}, offload_folder=tmp_path).eval()
    assert set(model.hf_device_map.values()) == {"cpu", "disk"}
    assert BLOCKS[system] <= set(model._no_split_modules)
    blocks = {name for name, module in model.named_modules() if type(module).__name__ in BLOCKS[system]}
    assert len(blocks) >= 2
    assert not [place for place in model.hf_device_map for block in blocks if place.startswith(f"{block}.")]
    assert torch.equal(model(**inputs).logits, expected.logits)


def test_a_tied_head_is_tied_wherever_it_is_and_nothing_is_allocated_on_meta(saved):
    _, folder, *_ = saved
    model = VLMForConditionalGeneration.from_pretrained(folder, device_map={"": "cpu"})
    assert (model.llm.lm_head.weight is model.get_input_embeddings().weight) == model.config.llm.tie_word_embeddings
    meta = VLMForConditionalGeneration.from_pretrained(folder, device_map="meta")
    assert {tensor.device.type for tensor in meta.state_dict().values()} == {"meta"}
    assert sum(p.numel() for p in meta.parameters()) == sum(p.numel() for p in model.parameters())


@torch.no_grad()
def test_eager_and_sdpa_attention_agree_on_single_and_packed_rows(saved):
    _, folder, inputs, expected, _ = saved
    models = [load_model(folder, attn_implementation=name)[0] for name in ("eager", "sdpa")]
    for model in models:
        assert torch.allclose(model(**inputs).logits, expected.logits, atol=1e-5)
    length = inputs["input_ids"].shape[1]
    twice = {name: torch.cat([value, value], 1 if name in ("input_ids", "labels") else 0) for name, value in inputs.items()}
    places = torch.arange(length).repeat(2)[None]
    eager, sdpa = (model(**twice, position_ids=places, use_cache=False) for model in models)
    assert torch.allclose(eager.logits, sdpa.logits, atol=1e-5)
    assert torch.allclose(sdpa.logits[:, length:], expected.logits, atol=1e-5)
    assert eager.loss.item() == pytest.approx(sdpa.loss.item(), rel=1e-5)


@pytest.mark.skipif(find_spec("flash_attn") is not None, reason="the package is there")
def test_flash_attention_without_its_package_is_refused_by_name(saved):
    with pytest.raises(ImportError, match=r"FlashAttention2 .*cannot be used.*installed"):
        VLMForConditionalGeneration.from_pretrained(saved[1], attn_implementation="flash_attention_2")
