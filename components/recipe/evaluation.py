"""`evaluate`: which benchmarks are reported, and how answers are made and read."""

from typing import Literal

from pydantic import Field, model_validator

from components.recipe.base import Name, Section

Form = Literal["answer", "choice", "yes_no", "contains", "detail"]
"""How a question is put and its answer read."""


class Benchmark(Section):
    """One VLMEvalKit-style TSV: index, image (base64), question, answer, and optionally category (the kind), language, hint and options A, B, ..."""

    path: str | None = Field(description="the TSV, relative to the project; null: the rows of `held_out.report`, as questions")
    shuffle_images: bool = Field(default=False, description="control: every question gets another row's picture; a model that looks must fail")
    overall: bool = Field(default=True, description="counts in the overall score that soup and gate look at")
    weight: float = Field(default=1, gt=0, description="weight in the overall score: half each for two languages of one benchmark")
    form: Form = Field(
        default="answer",
        description="with POINTS1.5's prompts; answer: the question as it is, compared whole; choice: options behind it, their letter is read;"
        " yes_no; contains: right when one of the right answers, maybe a list, is in it; detail: asks for detail, to be judged elsewhere",
    )
    circular: bool = Field(default=False, description="rows i + k * 1000000 are row i with its options rotated; only all of them right is right (MMBench)")
    min_pixels: int | None = Field(default=None, gt=0, description="native resolution: smaller pictures are enlarged to this area; null: the model's")
    max_pixels: int | None = Field(default=None, gt=0, description="native resolution: larger pictures are reduced to this area; null: the model's")
    max_tiles: int | None = Field(default=None, gt=0, description="tiles: as many at most; null: the model's")


Ruleset = Literal["exact-1", "vlmevalkit-2024-12", "vlmevalkit-2026-08"]


class Evaluate(Section):
    """Free generation, greedy decoding, answers read by a versioned rule set."""

    benchmarks: dict[Name, Benchmark] = Field(min_length=1, description="benchmark name -> file")
    ruleset: Ruleset = Field(
        default="exact-1",
        description="how an answer is read: exact-1 compares case-folded text without final punctuation; vlmevalkit-DATE reads each form as VLMEvalKit"
        " did then, without a judge",
    )
    max_new_tokens: int = Field(default=16, gt=0, description="longest answer, tokens")
    batch: int = Field(default=64, gt=0, description="questions answered together")

    @model_validator(mode="after")
    def _something_counts(self) -> "Evaluate":
        if not any(b.overall for b in self.benchmarks.values()):
            raise ValueError("at least one benchmark must have overall: true")
        return self
