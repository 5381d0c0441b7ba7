"""`stages`: what is trained, on what, for how long."""

from typing import Any, Literal

from pydantic import Field, model_validator

from components.recipe.augment import Augment
from components.recipe.base import Name, Section

Group = Literal["vision", "connector", "llm"]
"""Module groups: a total, ordered partition of the model's parameters."""


class GroupRates(Section):
    """Rates of one module group; null takes the stage's."""

    lr: float | None = Field(default=None, gt=0, description="peak learning rate; null: the stage's")
    weight_decay: float | None = Field(default=None, ge=0, description="decoupled weight decay; null: the stage's")


class StageData(Section):
    """Which rows a stage sees, and as what text."""

    sources: list[Name] = Field(description="sources that are mixed, in proportion to their rows")
    template: Literal["chat", "plain"] = Field(
        "chat", description="chat: user and assistant turns, loss on answers; plain: picture, then the text of the answers, loss on all text"
    )
    percent: int = Field(default=100, ge=1, le=100, description="share of the rows that is used, drawn by `subset_seed`, percent")
    subset_seed: int = Field(default=0, ge=0, description="which share is drawn")
    augment: Augment | None = Field(default=None, description="varied copies of the pictures; null: each as it is")


class Batch(Section):
    """The global batch. Exactly one of `samples` and `packs`. How it is cut into micro-batches and ranks is the runtime profile's business."""

    samples: int | None = Field(default=None, gt=0, description="samples per optimizer step over all ranks")
    packs: int | None = Field(
        default=None,
        gt=0,
        description="packed rows of `max_tokens` per optimizer step over all ranks: nearly full, and the same rows however many ranks share them",
    )
    max_tokens: int = Field(default=4096, gt=0, description="length of a packed sequence, tokens; longer samples are left out, counted and named")

    @model_validator(mode="after")
    def _one_unit(self) -> "Batch":
        if (self.samples is None) == (self.packs is None):
            raise ValueError("give exactly one of samples and packs")
        return self


class Schedule(Section):
    """Learning rate over time. Exactly one of `steps` and `epochs`."""

    kind: Literal["cosine", "linear", "constant"] = Field(default="cosine", description="shape of the decay after the warm-up")
    steps: int | None = Field(default=None, gt=0, description="optimizer steps")
    epochs: float | None = Field(default=None, gt=0, description="passes over the rows")
    warmup: float = Field(default=0.03, ge=0, lt=1, description="share of the steps in which the rate rises linearly from 0")
    min_ratio: float = Field(default=0.0, ge=0, le=1, description="lowest rate over peak rate")

    @model_validator(mode="after")
    def _one_length(self) -> "Schedule":
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give exactly one of steps and epochs")
        return self


class Optimizer(Section):
    """AdamW (Loshchilov and Hutter 2019) with decoupled weight decay; Muon (Jordan et al. 2024) for weight matrices where `muon` is set."""

    muon: float | None = Field(
        default=None,
        gt=0,
        description="Muon's peak learning rate for the matrices inside the trainable groups, embeddings and head excepted, at the stage's `lr`;"
        " null: AdamW for all. Matrices must be whole: a runtime profile with ZeRO stage 0",
    )
    betas: tuple[float, float] = Field(default=(0.9, 0.95), description="decay of the first and second moment")
    eps: float = Field(default=1e-8, gt=0, description="added to the root of the second moment")
    clip: float = Field(default=1.0, gt=0, description="largest global gradient norm")


class Contrastive(Section):
    """Pictures against captions: a picture is the mean of its patches out of the tower, a caption the language model's state at its last token, each behind
    a projection that only this stage has. What they are compared with are all samples of the step, on all ranks; equal captions are not told apart."""

    loss: Literal["softmax", "sigmoid"] = Field(
        default="softmax",
        description="softmax: CLIP (arXiv 2103.00020), the scale at most 100; sigmoid: SigLIP (arXiv 2303.15343), with a learned bias",
    )
    width: int = Field(default=512, gt=0, description="size of the space that both are projected into")


class TrainingConfig(Section):
    """One training run: a stage without candidates, or one candidate of a stage."""

    objective: Literal["text", "lm", "contrastive"] = Field(
        "lm",
        description="text: language modelling on the corpus text before curation, no pictures; lm: next-token loss on answers, given pictures; "
        "with template plain and the group vision, the tower learns by captioning; contrastive: a picture finds its caption among those of the step",
    )
    contrastive: Contrastive | None = Field(default=None, description="of objective contrastive; null: its defaults")
    init_from: Name | None = Field(
        default=None, description="stage whose weights it starts from; null: random weights (the compiler fills in the stage before)"
    )
    trainable: dict[Group, GroupRates] = Field(min_length=1, description="module groups that learn; the others are frozen")
    lr: float = Field(gt=0, description="peak learning rate")
    weight_decay: float = Field(default=0.0, ge=0, description="decoupled weight decay")
    data: StageData
    batch: Batch
    schedule: Schedule
    optimizer: Optimizer = Field(default_factory=Optimizer)

    @model_validator(mode="after")
    def _objective_fits(self) -> "TrainingConfig":
        if self.objective == "text" and set(self.trainable) != {"llm"}:
            raise ValueError("objective text trains the llm group and nothing else")
        if self.objective != "contrastive":
            if self.contrastive is not None:
                raise ValueError(f"the section contrastive does not go with objective {self.objective}: leave it out")
            return self
        if "connector" in self.trainable:
            raise ValueError("objective contrastive does not reach the connector: train vision, llm or both")
        if self.data.template != "plain":
            raise ValueError("objective contrastive compares pictures with the text of the answers alone: set data.template: plain")
        if (self.batch.samples or 0) < 2:
            raise ValueError("objective contrastive compares the samples of a step with each other: give batch.samples, two at least")
        return self


class Stage(TrainingConfig):
    """One training stage, and its soup candidates where it has some."""

    candidates: dict[Name, dict[str, Any]] = Field(
        default={}, description="soup candidates: name -> keys of the stage that it overrides, nested as in the stage"
    )

    @model_validator(mode="after")
    def _candidates_are_stages(self) -> "Stage":
        for name in self.candidates:
            self.candidate(name)
        return self

    def candidate(self, name: str) -> TrainingConfig:
        """The training run of candidate `name`: the stage with the candidate's overrides laid over it."""
        return resolve(self.model_dump(mode="json", exclude={"candidates"}), self.candidates[name])


def resolve(stage: dict[str, Any], override: dict[str, Any]) -> TrainingConfig:
    """Lays `override` over `stage`, mapping by mapping, and checks the result.

    Lists and scalars are replaced whole. Raises pydantic.ValidationError for keys or values that a stage cannot have.
    """

    def lay(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
        nested = {k: lay(base[k], v) for k, v in over.items() if isinstance(v, dict) and isinstance(base.get(k), dict)}
        return {**base, **over, **nested}

    return TrainingConfig.model_validate(lay(stage, override))
