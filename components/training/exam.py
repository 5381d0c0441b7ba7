"""Held-out rows, asked about ten times while a stage learns: the learning curve."""

import math
from typing import Any

import torch

from components.data.loader import MicroBatch

POINTS = 10
"""Points of a curve."""

IGNORED = -100


class Exam:
    """Held-out samples as micro-batches. Every rank goes through all of them: ZeRO 3 needs all ranks for each forward pass."""

    def __init__(self, micro_batches: list[MicroBatch], total: int) -> None:
        """`total`: optimizer steps of the run."""
        self.micro_batches = micro_batches
        self.steps = {math.ceil(total * point / POINTS) for point in range(1, POINTS + 1)} if micro_batches else set()

    @torch.no_grad()
    def take(self, engine: Any) -> tuple[float, float]:
        """Mean loss per learned token (nats), and the share of answers whose every token is the likeliest, the right ones before it given."""
        nats, tokens, right, answers = 0.0, 0, 0, 0
        for micro in self.micro_batches:
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
