"""AdamW (Loshchilov and Hutter 2019) over the trainable module groups, each with its own rates; Muon for their matrices where the recipe says so."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch

from components.errors import RecipeError
from components.models.vlm import GROUPS, VLMForConditionalGeneration
from components.recipe.training import GroupRates, TrainingConfig

TABLES = ("embed_tokens.weight", "lm_head.weight")
"""Matrices whose rows are tokens: Muon is not for them (Jordan et al. 2024)."""


class Grouped(Protocol):
    """Parameters in groups: the model's own, and maybe others, which always learn at the stage's rates."""

    def groups(self) -> dict[str, list[str]]: ...

    def named_parameters(self) -> Iterator[tuple[str, torch.nn.Parameter]]: ...


class Together(torch.optim.Optimizer):
    """Several optimizers that step as one, with one state and one list of groups. No parameter may be in two of them."""

    def __init__(self, optimizers: list[torch.optim.Optimizer]) -> None:
        self.optimizers = optimizers
        super().__init__([group for o in optimizers for group in o.param_groups], {})
        self._share()

    def _share(self) -> None:
        """The parts work on this optimizer's own state and groups."""
        groups = iter(self.param_groups)
        for optimizer in self.optimizers:
            optimizer.state = self.state
            optimizer.param_groups = [next(groups) for _ in optimizer.param_groups]

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One step of each part."""
        assert closure is None
        for optimizer in self.optimizers:
            optimizer.step()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up a state that `state_dict` gave."""
        super().load_state_dict(state_dict)
        self._share()


def freeze(model: VLMForConditionalGeneration, config: TrainingConfig) -> None:
    """Lets the stage's trainable groups learn and freezes all others; frozen groups are in evaluation mode.

    The model itself is in training mode: that is what makes it run tower and connector also where a rank has no pictures.
    """
    model.train()
    groups, parameters = model.groups(), dict(model.named_parameters())
    for group, names in groups.items():
        for name in names:
            parameters[name].requires_grad_(group in config.trainable)
        getattr(model, group).train(group in config.trainable)


def parameter_groups(model: Grouped, config: TrainingConfig, muon: bool = False) -> list[dict[str, Any]]:
    """Optimizer groups of AdamW, or those of Muon, in a fixed order: per module group the decayed, then the others. `peak_lr` is the peak learning rate.

    Weight decay applies to matrices (two or more dimensions, embeddings included), not to biases and norms, as is usual since
    GPT-2's reproductions. Raises RecipeError when a trainable group has no parameters.
    """
    parameters = dict(model.named_parameters())
    result: list[dict[str, Any]] = []
    for group, names in model.groups().items():
        if group in GROUPS and group not in config.trainable:
            continue
        rates = config.trainable.get(group, GroupRates())  # pyright: ignore[reportArgumentType, reportCallIssue]
        lr = config.lr if rates.lr is None else rates.lr
        peak = lr / config.lr * (config.optimizer.muon or 0) if muon else lr
        decay = config.weight_decay if rates.weight_decay is None else rates.weight_decay
        if not names:
            raise RecipeError(f"trainable.{group}: this model has no parameters in that group; known: {', '.join(g for g, n in model.groups().items() if n)}")
        for matrices in (True, False):
            chosen = [
                parameters[n]
                for n in names
                if parameters[n].requires_grad
                and (parameters[n].ndim >= 2) == matrices
                and (config.optimizer.muon is not None and parameters[n].ndim == 2 and not n.endswith(TABLES)) == muon
            ]
            if chosen:
                result.append({"params": chosen, "lr": peak, "peak_lr": peak, "weight_decay": decay if matrices else 0.0})
    return result


def build_optimizer(model: Grouped, config: TrainingConfig) -> torch.optim.Optimizer:
    """The optimizer of a stage; `freeze` comes first."""
    groups = parameter_groups(model, config)
    adamw = torch.optim.AdamW(groups, lr=config.lr, betas=config.optimizer.betas, eps=config.optimizer.eps, fused=True) if groups else None
    if config.optimizer.muon is None:
        assert adamw is not None
        return adamw
    # match_rms_adamw: an update is about as large as one of AdamW, whatever the matrix's shape
    matrices = parameter_groups(model, config, muon=True)
    muon = torch.optim.Muon(matrices, lr=config.optimizer.muon, adjust_lr_fn="match_rms_adamw") if matrices else None
    return Together([o for o in (adamw, muon) if o is not None])


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Sets every group's learning rate to `factor` times its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
