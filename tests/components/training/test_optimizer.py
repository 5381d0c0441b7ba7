"""Which parameters go to which optimizer, and that two optimizers are one to the engine."""

from pathlib import Path

import pytest
import torch
from torch import nn

from components.errors import RecipeError
from components.models.build import build_model
from components.models.tokenizer import train_tokenizer
from components.models.vlm import VLMForConditionalGeneration
from components.profile import Profile
from components.recipe.loader import load
from components.recipe.training import TrainingConfig
from components.training.engine import render
from components.training.optimizer import Together, build_optimizer, freeze, parameter_groups, set_rates

MICRO = load(Path(__file__).parents[2] / "recipes" / "micro.yaml")


@pytest.fixture(scope="module")
def model() -> VLMForConditionalGeneration:
    return build_model(MICRO.model, train_tokenizer(["red circle"], 300), seed=0)


def config(**change: object) -> TrainingConfig:
    stage = MICRO.stages["vision"].model_dump(mode="json", exclude={"candidates"})
    return TrainingConfig.model_validate({**stage, **change})


def names(model: VLMForConditionalGeneration, groups: list[dict[str, object]]) -> set[str]:
    by_id = {id(p): n for n, p in model.named_parameters()}
    return {by_id[id(p)] for g in groups for p in g["params"]}  # pyright: ignore[reportGeneralTypeIssues]


def test_muon_takes_the_matrices_inside_and_adamw_the_rest(model: VLMForConditionalGeneration) -> None:
    made = config(optimizer={"muon": 0.006})
    matrices, rest = names(model, parameter_groups(model, made, muon=True)), names(model, parameter_groups(model, made))
    parameters = dict(model.named_parameters())
    assert matrices | rest == set(parameters)
    assert not matrices & rest
    assert {parameters[n].ndim for n in matrices} == {2}
    assert {"llm.model.embed_tokens.weight", "vision.patch_embed.proj.weight"} <= rest
    assert {n for n in rest if parameters[n].ndim == 2} == {"llm.model.embed_tokens.weight"}


def test_a_group_with_its_own_rate_has_it_under_muon_in_proportion(model: VLMForConditionalGeneration) -> None:
    made = config(lr=2e-3, trainable={"vision": {"lr": 1e-3}, "llm": {}}, optimizer={"muon": 0.006})
    assert [g["peak_lr"] for g in parameter_groups(model, made, muon=True)] == [0.003, 0.006]
    assert {g["peak_lr"] for g in parameter_groups(model, made)} == {1e-3, 2e-3}


def test_without_muon_there_is_adamw_alone(model: VLMForConditionalGeneration) -> None:
    assert isinstance(build_optimizer(model, config()), torch.optim.AdamW)
    assert names(model, parameter_groups(model, config())) == set(dict(model.named_parameters()))


def layer() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(4, 3)


def together(of: nn.Linear) -> Together:
    return Together([torch.optim.AdamW([of.bias], lr=0.1), torch.optim.Muon([of.weight], lr=0.1)])


def learn(of: nn.Linear, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for i in steps:
        torch.manual_seed(i)
        optimizer.zero_grad()
        of(torch.randn(8, 4)).square().mean().backward()
        optimizer.step()


def test_two_optimizers_step_as_each_of_them_alone() -> None:
    one, two = layer(), layer()
    learn(one, together(one), range(3))
    adamw, muon = torch.optim.AdamW([two.bias], lr=0.1), torch.optim.Muon([two.weight], lr=0.1)
    for i in range(3):
        learn(two, adamw, range(i, i + 1))
        muon.step()
        muon.zero_grad()
    assert torch.equal(one.weight, two.weight)
    assert torch.equal(one.bias, two.bias)
    assert not torch.equal(one.weight, layer().weight)


def test_a_state_that_was_saved_goes_on_bit_by_bit() -> None:
    whole, broken = layer(), layer()
    learn(whole, together(whole), range(6))
    first = together(broken)
    learn(broken, first, range(3))
    saved = first.state_dict()
    second = together(broken)
    second.load_state_dict(saved)
    learn(broken, second, range(3, 6))
    assert torch.equal(whole.weight, broken.weight)
    assert torch.equal(whole.bias, broken.bias)


def test_rates_reach_both() -> None:
    of = layer()
    optimizer = together(of)
    for group in optimizer.param_groups:
        group["peak_lr"] = group["lr"]
    set_rates(optimizer, 0)
    learn(of, optimizer, range(2))
    assert torch.equal(of.weight, layer().weight)
    assert torch.equal(of.bias, layer().bias)


@pytest.mark.parametrize("profile", [Profile(zero_stage=2), Profile(precision="bf16")])
def test_muon_on_pieces_of_matrices_is_refused(profile: Profile) -> None:
    with pytest.raises(RecipeError, match=r"optimizer\.muon needs whole matrices"):
        render(config(optimizer={"muon": 0.006}), profile, 1, 100)
    assert render(config(optimizer={"muon": 0.006}), Profile(), 1, 100)["zero_optimization"]["stage"] == 0


def test_frozen_groups_have_no_optimizer(model: VLMForConditionalGeneration) -> None:
    made = config(trainable={"connector": {}}, optimizer={"muon": 0.006})
    freeze(model, made)
    optimizer = build_optimizer(model, made)
    assert {n.split(".")[0] for n in names(model, optimizer.param_groups)} == {"connector"}
