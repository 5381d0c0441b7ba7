"""`evaluate`: which benchmarks are reported, and how answers are made and read."""

from typing import Literal

from pydantic import Field, model_validator

from components.recipe.base import Name, Section


class Benchmark(Section):
    """One VLMEvalKit-style TSV: index, image (base64), question, answer, and optionally category (the kind) and language."""

    path: str | None = Field(description="the TSV, relative to the project; null: the rows of `held_out.report`, as questions")
    shuffle_images: bool = Field(default=False, description="control: every question gets another row's picture; a model that looks must fail")
    overall: bool = Field(default=True, description="counts in the overall score that soup and gate look at")


class Evaluate(Section):
    """Free generation, greedy decoding, answers read by a versioned rule set."""

    benchmarks: dict[Name, Benchmark] = Field(min_length=1, description="benchmark name -> file")
    ruleset: Literal["exact-1"] = Field(default="exact-1", description="how an answer is read: exact-1 compares case-folded text without final punctuation")
    max_new_tokens: int = Field(default=16, gt=0, description="longest answer, tokens")
    batch: int = Field(default=64, gt=0, description="questions answered together")

    @model_validator(mode="after")
    def _something_counts(self) -> "Evaluate":
        if not any(b.overall for b in self.benchmarks.values()):
            raise ValueError("at least one benchmark must have overall: true")
        return self
