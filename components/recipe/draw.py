"""`draw`: a corpus of coloured shapes, for recipes that bring no data of their own."""

from typing import Literal

from pydantic import Field, model_validator

from components.recipe.base import Section

Color = Literal["red", "green", "blue", "yellow", "purple", "black"]
Shape = Literal["circle", "square", "triangle", "cross"]


class Noise(Section):
    """Deliberate defects, so that curation has something to find."""

    duplicates: int = Field(default=0, ge=0, description="caption rows repeated word for word with the same picture, rows")
    truncated: int = Field(default=0, ge=0, description="pictures cut off in the middle of the file, pictures")
    missing: int = Field(default=0, ge=0, description="rows that name a picture which is not there, rows")
    unanswered: int = Field(default=0, ge=0, description="question rows without an answer, rows")
    scrambled: int = Field(default=0, ge=0, description="captions with their words in random order, rows")


class Draw(Section):
    """How many pictures of coloured shapes to draw, and how large."""

    train: int = Field(description="pictures for training", gt=0)
    selection: int = Field(description="pictures for choosing soup ingredients", gt=0)
    report: int = Field(description="pictures for the reported score", gt=0)
    min_side: int = Field(default=40, ge=16, description="shortest side of a picture, pixels")
    max_side: int = Field(default=72, le=1024, description="longest side of a picture, pixels")
    withheld: list[tuple[Color, Shape]] = Field(
        default=[], description="(colour, shape) pairs that never occur in training; reported as benchmark files of their own"
    )
    noise: Noise = Field(default_factory=Noise, description="deliberate defects in the training rows")

    @model_validator(mode="after")
    def _something_can_be_drawn(self) -> "Draw":
        if self.min_side > self.max_side:
            raise ValueError(f"min_side {self.min_side} is larger than max_side {self.max_side}")
        if len(set(self.withheld)) == len(Color.__args__) * len(Shape.__args__):
            raise ValueError("withheld: all pairs of colour and shape are withheld: leave some for training")
        return self
