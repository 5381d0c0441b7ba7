"""LLaVA-1.5 and InternVL-1.5 through the composed class: equal to transformers' own classes, and of the published size."""

import pytest
import torch
from transformers import InternVLConfig, InternVLForConditionalGeneration, LlavaConfig, LlavaForConditionalGeneration

from components.models.build import build_model, build_processor, vlm_config
from components.models.checkpoint import load_model, save_model
from components.models.errors import ModelError
from components.models.generation import answer
from components.models.vlm import VLMForConditionalGeneration
from components.recipe.model import Model
from tests.components.models.conftest import pack, picture, sample

LLM = {"backbone": "llama", "hidden": 48, "layers": 2, "heads": 4, "kv_heads": 2, "ffn": 64, "vocab": 320, "init_std": 0.1}
LLAVA = {
    "vision": {"encoder": "clip_vit", "depth": 3, "width": 32, "heads": 2, "patch": 8, "select_layer": -2, "init_std": 0.1},
    "resolution": {"kind": "fixed", "size": 32},
    "connector": {"pool": "none", "merge": 1},
    "llm": LLM,
}
INTERN = {
    "vision": {"encoder": "intern_vit_6b", "depth": 2, "width": 32, "heads": 2, "patch": 8, "init_std": 0.1},
    "resolution": {"kind": "tiles", "size": 32, "max_tiles": 6},
    "connector": {"pool": "pixel_unshuffle"},
    "llm": LLM,
}
SYSTEMS = {
    "llava": LLAVA,
    "internvl": INTERN,
    "internvl with a small tower": {**INTERN, "vision": {**INTERN["vision"], "encoder": "intern_vit", "select_layer": -2}},
}
CLASSES = {"llava": (LlavaConfig, LlavaForConditionalGeneration), "internvl": (InternVLConfig, InternVLForConditionalGeneration)}
NAMES = {"vision": "model.vision_tower", "llm.model": "model.language_model", "llm.lm_head": "lm_head"}
PROJECTORS = {"connector.ln_q": "layer_norm", "connector.mlp.0": "linear_1", "connector.mlp.2": "linear_2"}


def theirs(config):
    """transformers' configuration of the same model."""
    kind = "llava" if config.pool == "none" else "internvl"
    common = {"vision_config": config.vision, "text_config": config.llm, "vision_feature_layer": config.select_layer}
    if kind == "llava":
        return LlavaConfig(**common, image_token_index=config.image_token_id)
    return InternVLConfig(**common, image_token_id=config.image_token_id, downsample_ratio=1 / config.merge, tie_word_embeddings=False)


def stock(model):
    """transformers' own model with the weights of ours; what ours does not build stays random."""
    config = theirs(model.config)
    other = CLASSES[config.model_type][1]._from_config(config, attn_implementation="eager").eval()
    names = NAMES | {ours: f"model.multi_modal_projector.{name}" for ours, name in PROJECTORS.items()}
    weights = {names[p] + name.removeprefix(p): t for name, t in model.state_dict().items() for p in names if name.startswith(p + ".")}
    missing, unknown = other.load_state_dict(weights, strict=False)
    assert len(weights) == len(model.state_dict())
    assert not unknown
    last = model.config.vision.num_hidden_layers - 1
    assert all("post_layernorm" in name or (model.config.select_layer == -2 and f".{last}." in name) for name in missing)
    return other


@pytest.fixture(params=SYSTEMS)
def system(request, tokenizer):
    recipe = Model.model_validate(SYSTEMS[request.param])
    model = build_model(recipe, tokenizer, 0)
    with torch.no_grad():
        for name, p in model.named_parameters():  # position tables and class tokens begin as zeros: a test of parity needs them to matter
            if not p.any():
                torch.nn.init.normal_(p, std=0.1, generator=torch.Generator().manual_seed(len(name)))
    return model.eval(), build_processor(recipe, tokenizer)


def pictures_as_images(processor, inputs):
    """Our rows as the (N, 3, H, W) that transformers' classes take."""
    merge, patch, side = processor.merge, processor.patch, processor.resolution.size // processor.patch // processor.merge
    rows = inputs["pixel_values"].view(-1, side, side, merge, merge, 3, patch, patch)
    return rows.permute(0, 5, 1, 3, 6, 2, 4, 7).reshape(-1, 3, processor.resolution.size, processor.resolution.size)


@torch.no_grad()
def test_logits_equal_those_of_transformers_own_class(system):
    model, processor = system
    inputs = sample(processor, [picture(1, 90, 40), picture(2, 30, 30)], "what color is it ?", "red")
    expected = stock(model)(input_ids=inputs["input_ids"], pixel_values=pictures_as_images(processor, inputs)).logits
    logits = model(**inputs).logits
    assert (logits - expected).abs().max() <= 1e-5
    swapped = sample(processor, [picture(3, 90, 40), picture(2, 30, 30)], "what color is it ?", "red")
    assert (model(**swapped).logits - expected).abs().max() > 1e-2


@torch.no_grad()
def test_packed_samples_do_not_see_each_other(system):
    model, processor = system
    samples = [sample(processor, [picture(1, 90, 40)], "what color ?", "red"), sample(processor, [picture(2)], "how many ?", "two")]
    packed = model(**pack(samples)).logits
    assert (packed - torch.cat([model(**s).logits for s in samples], 1)).abs().max() <= 1e-5


def test_every_parameter_learns_and_text_alone_reaches_all_without_effect(system):
    model, processor = system
    model.train()
    model(**sample(processor, [picture(1, 90, 40)], "what color ?", "red")).loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
    model.zero_grad()
    model(**sample(processor, [], "what color ?", "red")).loss.backward()
    groups = model.groups()
    assert [name for names in groups.values() for name in names] == [name for name, _ in model.named_parameters()]
    assert all(model.get_parameter(n).grad is not None and not model.get_parameter(n).grad.any() for n in groups["vision"] + groups["connector"])


def test_gradients_are_equal_with_and_without_checkpointing(system):
    model, processor = system
    inputs = sample(processor, [picture(1, 90, 40)], "what color ?", "red")
    model.train()
    model(**inputs).loss.backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    model.gradient_checkpointing_enable()
    assert sum(getattr(m, "gradient_checkpointing", False) for m in model.modules()) > 4
    model(**inputs, use_cache=False).loss.backward()
    assert all(torch.equal(p.grad, expected[name]) for name, p in model.named_parameters())


def test_questions_are_answered(system):
    model, processor = system
    assert len(answer(model, processor, [picture(1, 90, 40), None], ["what ?", "how many ?"], max_new_tokens=3, batch=2)) == 2


@torch.no_grad()
def test_a_model_folder_gives_the_same_model_by_our_loader_and_by_transformers(system, tmp_path):
    model, processor = system
    save_model(model, processor, tmp_path)
    inputs = sample(processor, [picture(1, 90, 40)], "what color ?", "red")
    expected = model(**inputs).logits
    again, its_processor = load_model(tmp_path)
    assert torch.equal(again(**inputs).logits, expected)
    assert its_processor.settings() == processor.settings()
    by_transformers = VLMForConditionalGeneration.from_pretrained(tmp_path, attn_implementation="eager")
    torch.testing.assert_close(by_transformers(**inputs).logits, expected, atol=1e-5, rtol=1e-5)
    by_transformers.save_pretrained(tmp_path / "again")
    assert torch.equal(VLMForConditionalGeneration.from_pretrained(tmp_path / "again").eval()(**inputs).logits, expected)


def test_views_of_another_size_and_unknown_parts_are_refused(system, processor):
    model, _ = system
    inputs = sample(processor, [picture(1, 90, 40)], "what color ?", "red")
    with pytest.raises(ModelError, match="the tower takes views of 4x4 patches"):
        model(**inputs)
    config = model.config.to_dict()
    for part, kind in (("vision", "siglip_vision_model"), ("llm", "gpt2")):
        changed = type(model.config).from_dict({**config, part: {"model_type": kind}})
        with pytest.raises(ModelError, match=f"{part}.model_type is '{kind}', known"):
            VLMForConditionalGeneration(changed)


def num_parameters(model):
    return sum(p.numel() for p in model.parameters())


POINTS15 = {
    "vision": {"depth": 32, "width": 1280, "heads": 16},
    "llm": {"hidden": 3584, "layers": 28, "heads": 28, "kv_heads": 4, "ffn": 18944, "vocab": 152064},
}
LLAVA15 = {
    "vision": {"encoder": "clip_vit", "depth": 24, "width": 1024, "heads": 16, "select_layer": -2},
    "resolution": {"kind": "fixed", "size": 336},
    "connector": {"pool": "none", "merge": 1},
    "llm": {"backbone": "llama", "hidden": 4096, "layers": 32, "heads": 32, "kv_heads": 32, "ffn": 11008, "vocab": 32000},
}
INTERNVL15 = {
    "vision": {"encoder": "intern_vit_6b", "depth": 45, "width": 3200, "heads": 25},
    "resolution": {"kind": "tiles", "size": 448},
    "connector": {"pool": "pixel_unshuffle"},
    "llm": {"backbone": "llama", "hidden": 6144, "layers": 48, "heads": 48, "kv_heads": 8, "ffn": 16384, "vocab": 92553},
}

ONE_CLIP_LAYER = 4 * (1024**2 + 1024) + 2 * 1024 * 4096 + 4096 + 1024 + 4 * 1024
DEAD_MERGER = 2 * 1280 + 5120**2 + 5120 + 5120 * 3584 + 3584


@pytest.mark.parametrize(
    ("parts", "vocab", "number", "dead", "published"),
    [
        (POINTS15, 152_064, 8_291_375_616, DEAD_MERGER, 8_335_951_360),  # metadata.total_size of the published index: 16,671,902,720 bytes of bf16
        (LLAVA15, 32_064, 7_050_828_800, ONE_CLIP_LAYER + 2 * 1024, 7_063_427_072),  # llava-hf/llava-1.5-7b-hf
        (INTERNVL15, 92_553, 25_514_186_112, 0, 25_514_186_112),  # OpenGVLab/InternVL-Chat-V1-5 (25.5B)
    ],
)
def test_full_size_models_have_the_published_number_of_parameters(parts, vocab, number, dead, published):
    with torch.device("meta"):
        model = VLMForConditionalGeneration._from_config(vlm_config(Model.model_validate(parts), vocab, 5), dtype=torch.bfloat16)
    assert num_parameters(model) == number
    assert sum(len(names) for names in model.groups().values()) == len(list(model.parameters()))
    assert number + dead == published
    if model.config.pool != "patch_merge":
        config = theirs(model.config)
        with torch.device("meta"):
            assert num_parameters(CLASSES[config.model_type][1]._from_config(config)) == published
