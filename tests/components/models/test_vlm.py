import pytest
import torch
from torch.nn import functional as F

from components.models.build import build_model, vlm_config
from components.models.config import VLMConfig
from components.models.errors import ModelError
from components.models.vlm import next_token_loss, positions
from tests.components.models.conftest import pack, picture, sample

CLOSE = {"atol": 2e-5, "rtol": 1e-4}


@pytest.fixture
def samples(processor):
    return [
        sample(processor, [picture(1, 40, 56)], "what color is it ?", "red"),
        sample(processor, [picture(2, 32, 32), picture(3, 48, 40)], "same ?", "two red circles"),
        sample(processor, [], "这是什么颜色？", "红色"),
        sample(processor, [picture(4, 33, 90)], "how many shapes are there ?", "one"),
    ]


def without_labels(inputs):
    return {name: value for name, value in inputs.items() if name != "labels"}


def test_groups_are_a_total_ordered_partition_of_the_parameters(model):
    groups = model.groups()
    assert list(groups) == ["vision", "connector", "llm"]
    assert [name for names in groups.values() for name in names] == [name for name, _ in model.named_parameters()]
    assert all(groups.values())
    assert sorted(groups["connector"]) == sorted(f"connector.{part}.{kind}" for part in ("ln_q", "mlp.0", "mlp.2") for kind in ("weight", "bias"))


def test_the_towers_own_merger_has_no_weights(model):
    assert not [name for name in model.state_dict() if "merger" in name]


def test_parts_are_initialised_with_the_recipes_deviations(recipe, tokenizer, model):
    def deviation(name):
        return model.get_parameter(name).std().item()

    assert deviation("vision.blocks.0.mlp.fc1.weight") == pytest.approx(0.08, rel=0.1)
    assert deviation("vision.patch_embed.proj.weight") == pytest.approx(0.08, rel=0.1)
    assert deviation("llm.model.embed_tokens.weight") == pytest.approx(0.05, rel=0.1)
    assert deviation("llm.model.layers.1.mlp.up_proj.weight") == pytest.approx(0.05, rel=0.1)
    joined = 32 * 4
    assert deviation("connector.mlp.0.weight") == pytest.approx((1 / 3 / joined) ** 0.5, rel=0.1)  # torch's default: uniform within 1/sqrt(fan in)
    assert torch.equal(model.llm.model.norm.weight, torch.ones(32))


def test_the_seed_decides_the_weights_and_torchs_own_state_is_left_alone(recipe, tokenizer):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, again, other = (build_model(recipe, tokenizer, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.rand(3), expected)
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    assert not torch.equal(first.llm.model.embed_tokens.weight, other.llm.model.embed_tokens.weight)
    assert not torch.equal(first.connector.mlp[0].weight, other.connector.mlp[0].weight)


@pytest.mark.parametrize("tied", [True, False])
def test_the_head_is_tied_when_the_recipe_says_so(recipe, tokenizer, tied):
    changed = recipe.model_copy(update={"llm": recipe.llm.model_copy(update={"tie_embeddings": tied})})
    model = build_model(changed, tokenizer, 0)
    assert (model.llm.lm_head.weight is model.llm.model.embed_tokens.weight) is tied
    assert ("llm.lm_head.weight" in model.groups()["llm"]) is not tied


def test_the_recipes_numbers_reach_the_configuration(recipe, tokenizer):
    config = vlm_config(recipe, len(tokenizer), 6)
    assert (config.llm.rope_parameters["rope_theta"], config.llm.rms_norm_eps, config.llm.max_position_embeddings) == (1e6, 1e-6, 256)
    assert (config.pool, config.merge, config.llm.vocab_size, config.image_token_id) == ("patch_merge", 2, len(tokenizer), 6)
    assert VLMConfig.from_dict(config.to_dict()).to_dict() == config.to_dict()


def test_a_fractional_mlp_ratio_is_refused(recipe, tokenizer):
    changed = recipe.model_copy(update={"vision": recipe.vision.model_copy(update={"mlp_ratio": 2.5})})
    with pytest.raises(ModelError, match=r"mlp_ratio is 2\.5"):
        build_model(changed, tokenizer, 0)


def test_the_connector_joins_windows_of_four_patches(model):
    patches = torch.randn(8, 32)
    connector = model.connector
    rows = F.layer_norm(patches, (32,), connector.ln_q.weight, connector.ln_q.bias, eps=1e-6)
    joined = torch.stack([rows[:4].flatten(), rows[4:].flatten()])
    hidden = F.linear(joined, connector.mlp[0].weight, connector.mlp[0].bias)
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
    torch.testing.assert_close(connector(patches), F.linear(hidden, connector.mlp[2].weight, connector.mlp[2].bias))


@torch.no_grad()
def test_pictures_packed_into_one_tower_pass_equal_single_passes(model, samples):
    packed = pack(samples)
    together = model.features(packed["pixel_values"], packed["image_grid_thw"])
    sizes = packed["image_grid_thw"].prod(-1).tolist()
    apart = [model.features(rows, grid[None]) for rows, grid in zip(packed["pixel_values"].split(sizes), packed["image_grid_thw"], strict=True)]
    assert len(apart) == 4
    torch.testing.assert_close(together, torch.cat(apart), **CLOSE)


@torch.no_grad()
def test_picture_features_stand_at_the_pads_in_order(model, samples):
    inputs = samples[1]
    embeds = model._embed(inputs["input_ids"], inputs["pixel_values"], inputs["image_grid_thw"])
    places = inputs["input_ids"] == model.config.image_token_id
    assert torch.equal(embeds[places], model.features(inputs["pixel_values"], inputs["image_grid_thw"]))
    assert torch.equal(embeds[~places], model.llm.model.embed_tokens(inputs["input_ids"])[~places])


@torch.no_grad()
@pytest.mark.parametrize("attention", ["sdpa", "eager", "varlen"])
def test_packed_rows_give_the_logits_and_the_loss_of_their_samples(recipe, tokenizer, samples, attention):
    model = build_model(recipe, tokenizer, 0, attn_implementation=attention).eval()
    packed = model(**pack(samples))
    apart = [model(**s) for s in samples]
    torch.testing.assert_close(packed.logits, torch.cat([a.logits for a in apart], 1), **CLOSE)
    learned = [int((s["labels"] != -100).sum()) for s in samples]
    mean = sum(a.loss * n for a, n in zip(apart, learned, strict=True)) / sum(learned)
    torch.testing.assert_close(packed.loss, mean, **CLOSE)


def test_packed_gradients_equal_those_of_the_samples(model, samples):
    total = sum(int((s["labels"] != -100).sum()) for s in samples)
    model(**pack(samples)).loss.backward()
    packed = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    for s in samples:
        model(**s, num_items_in_batch=total).loss.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(packed[name], parameter.grad, atol=2e-5, rtol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("training", [False, True])
def test_a_change_in_one_sample_leaves_the_others_of_its_row_alone(model, processor, samples, training):
    model.train(training)
    changed = [sample(processor, [picture(77, 40, 56)], "how many ?", "red"), *samples[1:]]
    before, after = model(**without_labels(pack(samples))).logits, model(**without_labels(pack(changed))).logits
    first, changed_first = samples[0]["input_ids"].shape[1], changed[0]["input_ids"].shape[1]
    torch.testing.assert_close(before[:, first:], after[:, changed_first:], **CLOSE)
    same = min(first, changed_first) - 1
    assert (before[:, same] - after[:, same]).abs().max() > 1e-2


def test_packed_rows_with_a_mask_or_a_cache_are_refused_because_they_leak(model, samples):
    packed = without_labels(pack(samples))
    with pytest.raises(ModelError, match="see each other"):
        model(**packed, attention_mask=torch.ones_like(packed["input_ids"]))
    with pytest.raises(ModelError, match="see each other"):
        model(**packed, use_cache=True)


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_neither_logits_nor_loss(model, samples, side):
    longest = max(s["input_ids"].shape[1] for s in samples)

    def pad(rows, value):
        space = [longest - row.shape[1] for row in rows]
        return torch.cat([F.pad(row, (n, 0) if side == "left" else (0, n), value=value) for row, n in zip(rows, space, strict=True)])

    ids = pad([s["input_ids"] for s in samples], 0)
    mask = pad([torch.ones_like(s["input_ids"]) for s in samples], 0)
    labels = pad([s["labels"] for s in samples], -100)
    pictures = {name: pack(samples)[name] for name in ("pixel_values", "image_grid_thw")}
    padded = model(ids, attention_mask=mask, labels=labels, **pictures)
    for row, s in enumerate(samples):
        torch.testing.assert_close(padded.logits[row][mask[row].bool()], model(**without_labels(s)).logits[0], **CLOSE)
    torch.testing.assert_close(padded.loss, model(**pack(samples)).loss, **CLOSE)


def test_positions_count_real_tokens_from_zero():
    assert positions(torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 0, 0]])).tolist() == [[0, 0, 0, 1, 2], [0, 1, 2, 2, 2]]


def test_the_loss_is_the_mean_over_learned_tokens_after_the_shift():
    logits, labels = torch.randn(2, 4, 7), torch.tensor([[-100, 3, -100, 5], [1, -100, -100, 2]])
    picked = [-F.log_softmax(logits[row, place - 1], -1)[label] for row, place, label in ((0, 1, 3), (0, 3, 5), (1, 3, 2))]
    torch.testing.assert_close(next_token_loss(logits, labels), sum(picked) / 3)
    torch.testing.assert_close(next_token_loss(logits, labels, 12), sum(picked) / 12)
    assert next_token_loss(logits, torch.full_like(labels, -100)).item() == 0


def test_pictures_that_do_not_fill_the_pads_are_refused_with_both_counts(model, samples):
    inputs = without_labels(samples[0])
    with pytest.raises(ModelError, match=r"4 picture tokens for \d+ "):
        model(**{**inputs, "pixel_values": inputs["pixel_values"][:16], "image_grid_thw": torch.tensor([[1, 4, 4]])})


def test_training_without_pictures_runs_the_tower_with_no_effect(model, samples):
    text = samples[2]
    expected = model(**text).loss
    model.train()
    loss = model(**text).loss
    loss.backward()
    assert torch.equal(loss, expected)
    groups = model.groups()
    for name in (*groups["vision"], *groups["connector"]):
        gradient = model.get_parameter(name).grad
        assert gradient is not None, name
        assert not gradient.any(), name


def test_every_parameter_learns_from_a_sample_with_a_picture(model, samples):
    model.train()
    model(**samples[0]).loss.backward()
    flat = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert flat == []


@torch.no_grad()
def test_varlen_attention_also_takes_stacked_padded_and_cached_rows(recipe, tokenizer, processor, samples):
    models = [build_model(recipe, tokenizer, 0, attn_implementation=name).eval() for name in ("varlen", "sdpa")]
    text = samples[2]["input_ids"]
    row = {"input_ids": torch.cat([text, text], 1), "position_ids": torch.arange(text.shape[1]).repeat(2)[None]}
    stacked = {name: value.expand(3, -1) for name, value in row.items()}
    padded = {"input_ids": row["input_ids"], "attention_mask": torch.ones_like(row["input_ids"]).index_fill(1, torch.tensor([0, 1]), 0)}
    for inputs in (stacked, padded, {"input_ids": row["input_ids"]}):
        a, b = (model(**inputs).logits for model in models)
        torch.testing.assert_close(a, b, **CLOSE)
    prompt = samples[2]["input_ids"]
    a, b = (model.generate(prompt, max_new_tokens=6, do_sample=False, pad_token_id=0) for model in models)
    assert torch.equal(a, b)


def test_varlen_gradients_are_those_of_sdpa(recipe, tokenizer, samples):
    gradients = []
    for name in ("varlen", "sdpa"):
        model = build_model(recipe, tokenizer, 0, attn_implementation=name)
        model(**pack(samples)).loss.backward()
        gradients.append({n: p.grad for n, p in model.named_parameters()})
    for n, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][n], atol=2e-5, rtol=1e-3)
