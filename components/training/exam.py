"""Held-out rows, asked about ten times while a stage learns: the learning curve."""

import math
from typing import Any

import torch

from components.data.loader import MicroBatch
from components.training.objective import Objective

POINTS = 10
"""Points of a curve."""


class Exam:
    """Held-out samples as micro-batches. Every rank goes through all of them: ZeRO 3 needs all ranks for each forward pass."""

    def __init__(self, micro_batches: list[MicroBatch], total: int) -> None:
        """`total`: optimizer steps of the run."""
        self.micro_batches = micro_batches
        self.steps = {math.ceil(total * point / POINTS) for point in range(1, POINTS + 1)} if micro_batches else set()

    @torch.no_grad()
    def take(self, engine: Any, objective: Objective) -> tuple[float, float]:
        """Loss and accuracy on the held-out rows, as the objective has them."""
        return objective.examine(engine, self.micro_batches)
