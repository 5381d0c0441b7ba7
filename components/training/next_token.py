"""Objectives `lm` and `text`: the mean next-token loss over all learned tokens of the step."""

from typing import Any

import torch

from components.data.loader import MicroBatch, StepBatch
from components.models.vlm import IGNORED, VLMForConditionalGeneration
from components.recipe.training import TrainingConfig
from components.training import engine as engines


def learner(model: VLMForConditionalGeneration, config: TrainingConfig, seed: int) -> VLMForConditionalGeneration:
    """What the engine trains: the model as it is."""
    return model


def backward(engine: Any, batch: StepBatch) -> float:
    """Runs this rank's micro-batches forward and backward; its part of the mean loss over all learned tokens of the step."""
    total = 0.0
    learned = max(1, batch.num_answer_tokens)
    for micro in batch.micro_batches:
        loss = engine(**micro.to(engine.device), use_cache=False, num_items_in_batch=learned).loss
        engine.backward(loss * engines.num_ranks())  # the engine takes the mean over the ranks, we want the sum
        total += loss.item()
    return total


def examine(engine: Any, micro_batches: list[MicroBatch]) -> tuple[float, float]:
    """Mean loss per learned token (nats), and the share of answers whose every token is the likeliest, the right ones before it given."""
    nats, tokens, right, answers = 0.0, 0, 0, 0
    for micro in micro_batches:
        outputs = engine.module(**micro.to(engine.device), use_cache=False, num_items_in_batch=1)
        nats += outputs.loss.item()
        hits, num_answers = right_answers(outputs.logits.argmax(-1).cpu(), micro.labels)
        right, answers = right + hits, answers + num_answers
        tokens += int((micro.labels != IGNORED).sum())
    return nats / max(1, tokens), right / max(1, answers)


def right_answers(likeliest: torch.Tensor, labels: torch.Tensor) -> tuple[int, int]:
    """(wholly right answers, answers) of packed rows; both int64 (rows, tokens), `likeliest[:, i]` foretells `labels[:, i + 1]`.

    An answer is a run of learned labels: between two of them there is always a token that is not learned.
    """
    learned = labels[:, 1:] != IGNORED
    wrong = learned & (likeliest[:, :-1] != labels[:, 1:])
    starts = learned & ~torch.nn.functional.pad(learned, (1, 0))[:, :-1]
    number = starts.flatten().cumsum(0)  # the learned tokens of the n-th answer have the number n
    num_answers = int(starts.sum())
    return num_answers - len(number[wrong.flatten()].unique()), num_answers
