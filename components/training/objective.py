"""What a stage learns by: the one thing besides data and rates in which stages differ."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from components.data.loader import MicroBatch, StepBatch
from components.models.vlm import VLMForConditionalGeneration
from components.recipe.training import TrainingConfig
from components.training import contrastive, next_token


@dataclass(frozen=True)
class Objective:
    """An objective is three functions."""

    learner: Callable[[VLMForConditionalGeneration, TrainingConfig, int], VLMForConditionalGeneration | contrastive.TwoTowers]
    """model, stage, seed -> what the engine trains: the model, or a module around it, whose parameters are then called `model.*`"""
    backward: Callable[[Any, StepBatch], float]
    """engine, batch -> this rank's part of the step's loss, its gradients left in the engine"""
    examine: Callable[[Any, list[MicroBatch]], tuple[float, float]]
    """engine, held-out rows -> loss, accuracy"""


NEXT_TOKEN = Objective(next_token.learner, next_token.backward, next_token.examine)
OBJECTIVES = {"text": NEXT_TOKEN, "lm": NEXT_TOKEN, "contrastive": Objective(contrastive.learner, contrastive.backward, contrastive.examine)}
