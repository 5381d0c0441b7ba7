"""The plan's formulas against published figures and against what is built and trained."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from components.models.build import vlm_config
from components.models.vlm import VLMForConditionalGeneration
from components.plan.cost import Count, Machine, activation_bytes, gpu_hours, state_bytes, work_per_token
from components.plan.plan import group_sizes, plan
from components.recipe.loader import find, load
from tests.components.training.corpus import MICRO
from tests.components.training.test_contrastive import vision


@pytest.mark.parametrize(("stage", "gigabytes"), [(1, 31.4), (2, 16.6), (3, 1.9)])
def test_memory_of_weights_gradients_and_optimizer_is_the_zero_papers(stage, gigabytes):
    """Figure 1 there: 7.5 billion parameters on 64 GPUs, 120 GB without ZeRO."""
    assert state_bytes(Count(7_500_000_000, 0), Machine(64, stage, "bf16")) / 1e9 == pytest.approx(gigabytes, abs=0.05)
    assert state_bytes(Count(7_500_000_000, 0), Machine(1, stage, "bf16")) / 1e9 == 120


def test_frozen_weights_have_neither_gradients_nor_an_optimizer():
    assert state_bytes(Count(0, 100), Machine(4, 2, "bf16")) == 200
    assert state_bytes(Count(0, 100), Machine(4, 3, "bf16")) == 50
    assert state_bytes(Count(10, 0), Machine(1, 0, "fp32")) == 160


@pytest.mark.parametrize("trained", [{"connector"}, {"connector", "llm"}, {"vision", "connector", "llm"}])
def test_work_per_token_is_what_torch_counts(trained):
    """On a tower so wide that its attention, which the plan leaves out, is small."""
    llm = "model.llm={hidden: 128, layers: 2, heads: 4, kv_heads: 2, ffn: 512, vocab: 400}"
    recipe = load(MICRO, ["model.vision={depth: 2, width: 256, heads: 4, patch: 8}", llm])
    model = VLMForConditionalGeneration._from_config(vlm_config(recipe.model, 400, 399), attn_implementation="eager").train()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.partition(".")[0] in trained)
    tokens, rows = torch.full((1, 16), 399), torch.randn(64, 3 * 2 * 64)
    with FlopCounterMode(display=False) as counter:
        model(tokens, labels=tokens, pixel_values=rows, image_grid_thw=torch.tensor([[1, 8, 8]]), use_cache=False).loss.backward()
    assert counter.get_total_flops() == pytest.approx(16 * work_per_token(recipe.model, group_sizes(recipe), trained, 16), rel=0.05)


def test_a_tower_that_learns_keeps_more_and_a_longer_row_too():
    recipe = load(MICRO).model
    machine = Machine(1, 0, "bf16")
    frozen, learning = (activation_bytes(recipe, 256, machine, vision_learns=learns) for learns in (False, True))
    assert 0 < frozen < learning
    assert activation_bytes(recipe, 512, machine, vision_learns=True) == 2 * learning


def test_a_plan_has_every_run_with_the_parameters_that_it_trains():
    recipe = load(MICRO, ["stages.vision.schedule={epochs: 2}", "stages.projector.batch={packs: 4, max_tokens: 256}"])
    lines = {line.name: line for line in plan(recipe, Machine(2, 2, "bf16"))}
    assert list(lines) == ["llm", "vision", "projector", "instruct-a", "instruct-b", "instruct-c"]
    sizes = group_sizes(recipe)
    assert (lines["projector"].trained, lines["projector"].frozen) == (sizes["connector"], sizes["vision"] + sizes["llm"])
    assert lines["vision"].steps is lines["vision"].tokens is lines["vision"].gpu_hours is None  # as many as there are rows
    assert (lines["projector"].steps, lines["projector"].tokens) == (6, 6 * 4 * 256)
    assert lines["instruct-c"].gpu_hours == pytest.approx((lines["instruct-b"].gpu_hours or 0) * 10 / 6)
    assert gpu_hours(3.6e15, Machine(1, 0, "bf16", tflops=2, mfu=0.5)) == 1


def test_pictures_and_captions_are_embedded_twice_and_pass_by_the_connector():
    recipe = load(MICRO, [vision("softmax")])
    line = next(line for line in plan(recipe, Machine(2, 2, "bf16")) if line.name == "vision")
    sizes = {**group_sizes(recipe), "connector": 0}
    once = gpu_hours((line.tokens or 0) * work_per_token(recipe.model, sizes, {"vision", "llm"}, 256), Machine(2, 2, "bf16"))
    assert line.trained == sizes["vision"] + sizes["llm"]
    assert line.gpu_hours == pytest.approx(once * 4 / 3)


PAPER = {"projector": (2e-4, 0.0, {"connector"}, 2.1e9), "instruct": (2e-5, 0.1, {"connector", "llm"}, 2.3e9)}


@pytest.mark.parametrize(("name", "llm"), [("points15", 7_615_616_512), ("points15-3b", 3_085_938_688)])
def test_points15s_recipes_have_the_papers_table_and_the_published_sizes(name, llm):
    recipe = load(find(name))
    sizes = group_sizes(recipe)
    assert (sizes["vision"], sizes["llm"]) == (631_183_360, llm)
    assert sum(sizes.values()) == 8_291_375_616 or name == "points15-3b"
    for stage, (lr, decay, trained, tokens) in PAPER.items():
        config = recipe.stages[stage]
        assert (config.lr, config.weight_decay, set(config.trainable), config.optimizer.clip) == (lr, decay, trained, 1.0)
        assert (config.batch.packs, config.batch.max_tokens, config.schedule.kind) == (32, 4096, "cosine")
        assert (config.schedule.steps or 0) * 32 * 4096 == pytest.approx(tokens, rel=1e-4)
    bounds = {name: (b.min_pixels, b.max_pixels) for name, b in recipe.evaluate.benchmarks.items()}
    patches = {"mmbench_en": 1280, "mmbench_cn": 1280, "hallusionbench": 1280, "mmvet": 1280, "mmmu": 1280, "ai2d": 900, "mmstar": 900, "ocrbench": 100}
    assert bounds == {**{name: (n * 28**2, None) for name, n in patches.items()}, "mathvista": (56**2, None), "mmmu": (1280 * 28**2, 16384 * 28**2)}
