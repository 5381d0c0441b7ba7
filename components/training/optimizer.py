"""AdamW (Loshchilov and Hutter 2019) over the trainable module groups, each with its own rates."""

import torch

from components.errors import RecipeError
from components.models.vlm import VLMForConditionalGeneration
from components.recipe.training import TrainingConfig


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


def parameter_groups(model: VLMForConditionalGeneration, config: TrainingConfig) -> list[dict[str, object]]:
    """Optimizer groups in a fixed order: per module group the decayed, then the others. `peak_lr` is the peak learning rate.

    Weight decay applies to matrices (two or more dimensions, embeddings included), not to biases and norms, as is usual since
    GPT-2's reproductions. Raises RecipeError when a trainable group has no parameters.
    """
    parameters = dict(model.named_parameters())
    result: list[dict[str, object]] = []
    for group, names in model.groups().items():
        if group not in config.trainable:
            continue
        rates = config.trainable[group]
        lr = config.lr if rates.lr is None else rates.lr
        decay = config.weight_decay if rates.weight_decay is None else rates.weight_decay
        if not names:
            raise RecipeError(f"trainable.{group}: this model has no parameters in that group; known: {', '.join(g for g, n in model.groups().items() if n)}")
        for matrices in (True, False):
            chosen = [parameters[n] for n in names if (parameters[n].ndim >= 2) == matrices]
            if chosen:
                result.append({"params": chosen, "lr": lr, "peak_lr": lr, "weight_decay": decay if matrices else 0.0})
    return result


def build_optimizer(model: VLMForConditionalGeneration, config: TrainingConfig) -> torch.optim.AdamW:
    """The optimizer of a stage; `freeze` comes first."""
    return torch.optim.AdamW(parameter_groups(model, config), lr=config.lr, betas=config.optimizer.betas, eps=config.optimizer.eps, fused=True)


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Sets every group's learning rate to `factor` times its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
