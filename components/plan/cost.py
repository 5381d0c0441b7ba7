"""Formulas of memory and work. Pure functions of sizes; every one names its source."""

from dataclasses import dataclass
from typing import NamedTuple

from components.recipe.model import Model


class Count(NamedTuple):
    """Parameters."""

    trained: int
    frozen: int


@dataclass(frozen=True)
class Machine:
    """GPUs as the runtime profile cuts them up."""

    gpus: int
    zero_stage: int
    precision: str
    tflops: float = 989.0
    """peak of one GPU; an H100 SXM has so many in bf16 without sparsity (NVIDIA's data sheet)"""
    mfu: float = 0.4
    """model FLOPs utilisation (Chowdhery et al. 2022, arXiv 2204.02311, section 4.1)"""

    @property
    def weight_bytes(self) -> int:
        """Bytes of a weight, a gradient or an activation."""
        return 2 if self.precision == "bf16" else 4

    @property
    def optimizer_bytes(self) -> int:
        """Bytes of AdamW per trained parameter: two float32 moments, and under bf16 a float32 master copy."""
        return 12 if self.precision == "bf16" else 8


def state_bytes(count: Count, machine: Machine) -> int:
    """Bytes per GPU of weights, gradients and optimizer, under ZeRO (Rajbhandari et al. 2020, arXiv 1910.02054, section 5 and figure 1).

    Stage 1 divides the optimizer by the GPUs, stage 2 the gradients too, stage 3 the weights too. bf16 runs with stage 1 at least (see engine.py).
    """
    stage = max(machine.zero_stage, 1) if machine.precision == "bf16" else machine.zero_stage
    weights = machine.weight_bytes * (count.trained + count.frozen) / (machine.gpus if stage >= 3 else 1)
    gradients = machine.weight_bytes * count.trained / (machine.gpus if stage >= 2 else 1)
    optimizer = machine.optimizer_bytes * count.trained / (machine.gpus if stage >= 1 else 1)
    return round(weights + gradients + optimizer)


def activation_bytes(model: Model, tokens: int, machine: Machine, *, vision_learns: bool) -> int:
    """Bytes of what one micro-batch of `tokens` keeps for its backward pass, without checkpointing and with attention that keeps no scores.

    Per token and decoder layer 6 hidden + 2 keys and values + 4 MLP widths (Korthikanti et al. 2022, arXiv 2205.05198, section 4.1, for RMSNorm, grouped
    queries and SwiGLU); per token the logits, in the weights' precision and twice in float32. A tower that learns: 8 widths + 2 MLP widths per patch and
    block. A frozen tower keeps nothing, a frozen language model does: the gradient goes through it.
    """
    llm, vision = model.llm, model.vision
    grouped = llm.hidden * llm.kv_heads // llm.heads
    layer = 6 * llm.hidden + 2 * grouped + 4 * llm.ffn
    logits = llm.vocab * (2 * machine.weight_bytes + 8)
    tower = vision.depth * (8 + 2 * vision.mlp_ratio) * vision.width * model.connector.merge**2 if vision_learns else 0
    return round(tokens * (machine.weight_bytes * (llm.layers * layer + tower) + logits))


def work_per_token(model: Model, sizes: dict[str, int], trained: set[str], row: int) -> float:
    """Floating-point operations of training per token of a packed row of `row` tokens, every token a picture's: an upper bound.

    Forward 2 a parameter; backward 2 for the gradient of what goes in, wherever a group before or this one learns, and 2 for that of the weights, where the
    group learns (Kaplan et al. 2020, arXiv 2001.08361, section 2.1: 6 in all). Attention: 2 * layers * hidden * row forward when causal, twice that backward
    (Chowdhery et al. 2022, arXiv 2204.02311, appendix B). A token stands for merge^2 patches; the input embedding does no work.
    """
    llm = model.llm
    embedding = 0 if llm.tie_embeddings else llm.vocab * llm.hidden
    per_token = {"vision": sizes["vision"] * model.connector.merge**2, "connector": sizes["connector"], "llm": sizes["llm"] - embedding}
    total, reached = 0.0, False
    for group, parameters in per_token.items():
        learns = group in trained
        total += parameters * (2 + 2 * (reached or learns) + 2 * learns)
        reached = reached or learns
    return total + 2 * llm.layers * llm.hidden * row * (3 if reached else 1)


def gpu_hours(operations: float, machine: Machine) -> float:
    """Hours of one GPU."""
    return operations / (machine.tflops * 1e12 * machine.mfu * 3600)
