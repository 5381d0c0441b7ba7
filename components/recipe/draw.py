"""`draw`: a corpus of coloured shapes, for recipes that bring no data of their own."""

from typing import Literal

from pydantic import Field, model_validator

from components.recipe.base import Section

Color = Literal["red", "green", "blue", "yellow", "purple", "black"]
Shape = Literal["circle", "square", "triangle", "cross"]


class Noise(Section):
    """Deliberate defects, so that curation has something to find. `out/draw/noise.jsonl` names them; no step reads it."""

    duplicates: int = Field(default=0, ge=0, description="further caption rows with the messages and the picture of another, rows")
    near_duplicates: int = Field(default=0, ge=0, description="further caption rows with the messages and nearly the picture of another, rows")
    scrambled: int = Field(default=0, ge=0, description="captions with their words in random order, rows")
    wrong_language: int = Field(default=0, ge=0, description="captions in another language than the row says, rows")
    ungrammatical: int = Field(default=0, ge=0, description="question rows with a broken sentence for an answer, rows")
    answerable: int = Field(default=0, ge=0, description="question rows that tell their answers in words, rows")
    truncated: int = Field(default=0, ge=0, description="further caption rows whose picture is cut off in the middle of the file, rows")
    missing: int = Field(default=0, ge=0, description="further caption rows that name a picture which is not there, rows")
    unanswered: int = Field(default=0, ge=0, description="further question rows without an answer, rows")


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
        noise = self.noise
        for source, rows in (
            ("caption", noise.scrambled + noise.wrong_language + noise.duplicates + noise.near_duplicates),
            ("question", noise.ungrammatical + noise.answerable),
        ):
            if rows > self.train:
                raise ValueError(f"noise: {rows} {source} rows with a defect of their own are more than the {self.train} pictures of `train`")
        return self
