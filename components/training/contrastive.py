"""Objective `contrastive`: tower and language model learn to tell which caption belongs to which picture of the step.

A step's samples are compared all with all, however they are cut into ranks and micro-batches. So that a micro-batch's activations are all that is kept,
embeddings are first computed without a graph, then the loss and its gradient at the embeddings, then each micro-batch again with its part of that
gradient (Gao et al. 2021, GradCache, arXiv 2101.06983).
"""

import hashlib
import math
from typing import Any, NamedTuple

import torch
from torch import distributed, nn
from torch.nn import functional as F

from components.data.loader import MicroBatch, StepBatch
from components.models.vlm import IGNORED, VLMForConditionalGeneration
from components.recipe.training import Contrastive, TrainingConfig
from components.training import engine as engines
from components.training.contrastive_loss import negatives, sigmoid_loss, softmax_loss

HEADS = "heads"
"""Group of the parameters that the model does not have and that always learn."""
START = {"softmax": (1 / 0.07, 0.0), "sigmoid": (10.0, -10.0)}
"""Scale and bias of the cosines before the first step: CLIP's (section 2.5) and SigLIP's (section 3.2)."""
LARGEST_SCALE = 100.0
"""CLIP's bound (section 2.5)."""


class Embedded(NamedTuple):
    """What the loss is made of."""

    images: torch.Tensor
    """float32 (samples, width), of length 1"""
    texts: torch.Tensor
    """the same of their captions"""
    scale: torch.Tensor
    bias: torch.Tensor


class Ceiling(torch.autograd.Function):
    """min(x, bound), with a gradient that leads back below the bound and none that leads further up.

    CLIP clips the parameter itself after every step; under ZeRO it is in pieces, and there may be a second copy in float32.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, bound: float) -> torch.Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.above = x > bound
        return x.clamp(max=bound)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return gradient.masked_fill(ctx.above & (gradient < 0), 0), None


class Heads(nn.Module):
    """Projections, scale and bias. Only training needs them: a later stage takes the tower as its own projector sees it, patch by patch."""

    def __init__(self, vision: int, hidden: int, config: Contrastive) -> None:
        super().__init__()
        scale, bias = START[config.loss]
        self.image = nn.Sequential(nn.LayerNorm(vision), nn.Linear(vision, config.width, bias=False))
        self.text = nn.Linear(hidden, config.width, bias=False)
        self.log_scale = nn.Parameter(torch.tensor([math.log(scale)]))
        self.bias = nn.Parameter(torch.tensor([bias]), requires_grad=config.loss == "sigmoid")

    def forward(self, images: torch.Tensor, texts: torch.Tensor) -> Embedded:
        """(N, vision) pictures, (N, hidden) captions -> both in the common space."""
        images, texts = (F.normalize(head(x).float(), dim=-1) for head, x in ((self.image, images), (self.text, texts)))
        log_scale = self.log_scale.float()
        if not self.bias.requires_grad:
            log_scale = Ceiling.apply(log_scale, math.log(LARGEST_SCALE))
        return Embedded(images, texts, log_scale.exp().squeeze(), self.bias.float().squeeze())  # pyright: ignore[reportOptionalMemberAccess]


class TwoTowers(nn.Module):
    """The model as two encoders, and their heads. It takes what the model takes, rows of template `plain`."""

    def __init__(self, model: VLMForConditionalGeneration, config: Contrastive, seed: int) -> None:
        super().__init__()
        self.model, self.loss = model, config.loss
        if not model.config.llm.tie_word_embeddings:
            model.llm.lm_head.requires_grad_(False)  # captions do not come by it: it must not decay either
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.heads = Heads(model.vision.width, model.config.llm.hidden_size, config)

    def groups(self) -> dict[str, list[str]]:
        """Parameter names by group: the model's, and the heads."""
        ours = {group: [f"model.{name}" for name in names] for group, names in self.model.groups().items()}
        return {**ours, HEADS: [f"{HEADS}.{name}" for name, _ in self.heads.named_parameters()]}

    def forward(
        self,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor,
        labels: torch.Tensor,
        pixel_values: torch.Tensor | None,
        image_grid_thw: torch.Tensor | None,
    ) -> Embedded:
        """Embeddings of the samples in the order in which they stand in the rows.

        What is learned of a sample is its caption and the end token; the language model sees this alone, not how many pads the picture has. A micro-batch
        without samples goes through everything with no effect, so that ranks stay in step.
        """
        sample = (position_ids == 0).flatten().cumsum(0).view_as(position_ids)
        learned = labels != IGNORED
        numbers, owner, lengths = sample[learned].unique_consecutive(return_inverse=True, return_counts=True)
        ends = lengths.cumsum(0) - 1
        ids, places = input_ids[learned], torch.arange(len(owner), device=owner.device) - (ends - lengths + 1)[owner]
        if not len(ids):
            ids, places = input_ids.flatten()[:1], position_ids.flatten()[:1]
        states = self.model.llm.model(input_ids=ids[None], position_ids=places[None], use_cache=False).last_hidden_state[0]
        texts = states[ends]

        if pixel_values is None or image_grid_thw is None:
            pixel_values, image_grid_thw = self.model.vision.blank(states)
        patches = self.model.vision.patches(pixel_values, image_grid_thw).float()
        seen = torch.searchsorted(numbers, sample[input_ids == self.model.config.image_token_id])
        seen = seen.repeat_interleave(self.model.config.merge**2) if len(seen) else seen.new_full((len(patches),), len(numbers))
        sums = patches.new_zeros(len(numbers) + 1, patches.shape[1]).index_add(0, seen, patches)[:-1]
        images = sums / seen.bincount(minlength=len(numbers) + 1)[:-1, None]
        return self.heads(images.to(states.dtype), texts)


def learner(model: VLMForConditionalGeneration, config: TrainingConfig, seed: int) -> TwoTowers:
    """What the engine trains."""
    return TwoTowers(model, config.contrastive or Contrastive(), seed)


def backward(engine: Any, batch: StepBatch) -> float:
    """Gradients of the step's loss; this rank's part of it, nats per pair."""
    micro_batches = batch.micro_batches
    once = len(micro_batches) == 1  # its graph is kept, a second pass is not needed
    with torch.set_grad_enabled(once):
        outputs = [(engine if once else engine.module)(**micro.to(engine.device)) for micro in micro_batches]
    parts = [torch.cat([getattr(output, name) for output in outputs]).detach() for name in ("images", "texts")]
    said = torch.cat([captions(micro) for micro in micro_batches]).to(parts[0].device)
    offset, total = _place(len(said), parts[0].device)
    rows = slice(offset, offset + len(said))
    images, texts = (_gathered(part, rows, total).requires_grad_() for part in parts)
    scale, bias = (value.detach().requires_grad_() for value in (outputs[0].scale, outputs[0].bias))
    wrong = negatives(_gathered(said, rows, total), rows)
    loss = _loss(engine.module.loss, Embedded(images, texts, scale, bias), wrong, rows)
    at_images, at_texts, at_scale, at_bias = torch.autograd.grad(loss, [images, texts, scale, bias], materialize_grads=True)
    at_images, at_texts = _sum(at_images), _sum(at_texts)  # other ranks' parts of the loss hang on our rows, too
    first = offset
    for micro, output in zip(micro_batches, outputs, strict=True):
        again = output if once else engine(**micro.to(engine.device))
        mine = slice(first, first := first + len(again.images))
        carried = (again.images * at_images[mine]).sum() + (again.texts * at_texts[mine]).sum()
        carried = carried + (again.scale * at_scale + again.bias * at_bias) / len(micro_batches)
        engine.backward(carried * engines.num_ranks())  # the engine takes the mean over the ranks, we want the sum
    return loss.item()


def examine(engine: Any, micro_batches: list[MicroBatch]) -> tuple[float, float]:
    """Loss (nats per pair) over all samples at once, and the share of pictures that find their caption, or one with the same text, among them."""
    outputs = [engine.module(**micro.to(engine.device)) for micro in micro_batches]
    images, texts = (torch.cat([getattr(output, name) for output in outputs]) for name in ("images", "texts"))
    everything = slice(0, len(images))
    wrong = negatives(torch.cat([captions(micro) for micro in micro_batches]).to(images.device), everything)
    loss = _loss(engine.module.loss, Embedded(images, texts, outputs[0].scale, outputs[0].bias), wrong, everything)
    found = (images @ texts.T).argmax(1, keepdim=True)
    return loss.item(), 1 - wrong.gather(1, found).double().mean().item()


def captions(micro: MicroBatch) -> torch.Tensor:
    """int64 (samples,): equal for samples whose learned tokens are equal."""
    sample = (micro.position_ids == 0).flatten().cumsum(0).view_as(micro.position_ids)
    learned = micro.labels != IGNORED
    _, lengths = sample[learned].unique_consecutive(return_counts=True)
    tokens = micro.labels[learned].split(lengths.tolist()) if len(lengths) else ()
    digests = [hashlib.blake2b(ids.numpy().tobytes(), digest_size=8).digest() for ids in tokens]
    return torch.tensor([int.from_bytes(digest, "big", signed=True) for digest in digests], dtype=torch.int64)


def _loss(kind: str, embedded: Embedded, wrong: torch.Tensor, rows: slice) -> torch.Tensor:
    if kind == "softmax":
        return softmax_loss(embedded.images, embedded.texts, embedded.scale, wrong=wrong, rows=rows)
    return sigmoid_loss(embedded.images, embedded.texts, embedded.scale, embedded.bias, wrong=wrong, rows=rows)


def _place(number: int, device: torch.device) -> tuple[int, int]:
    """Where this rank's `number` rows begin among those of all ranks, and how many all have."""
    counts = torch.zeros(engines.num_ranks(), dtype=torch.int64, device=device)
    counts[engines.rank()] = number
    counts = _sum(counts)
    return int(counts[: engines.rank()].sum()), int(counts.sum())


def _gathered(mine: torch.Tensor, rows: slice, total: int) -> torch.Tensor:
    """The rows of all ranks; ranks have different numbers of them, so every one fills in its own and zeros are added."""
    whole = mine.new_zeros(total, *mine.shape[1:])
    whole[rows] = mine
    return _sum(whole)


def _sum(value: torch.Tensor) -> torch.Tensor:
    """Over all ranks."""
    if engines.num_ranks() > 1:
        value = value.contiguous()
        distributed.all_reduce(value)
    return value
