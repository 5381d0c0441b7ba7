"""`held_out`: rows that no stage trains on, for recipes that bring too few files of questions."""

from pydantic import Field, model_validator

from components.recipe.base import Section


class HeldOut(Section):
    """A share of the training rows that no stage trains on, drawn by hash: by the picture's, so that all its rows go together; rows of text by their id's."""

    selection: int = Field(
        default=0, ge=0, le=50, description="share that draws the learning curves, and chooses soup ingredients where `soup.selection` is null, percent"
    )
    report: int = Field(default=0, ge=0, le=50, description="share that is asked by a benchmark whose `path` is null, percent")

    @model_validator(mode="after")
    def _something_is_left(self) -> "HeldOut":
        if self.selection + self.report > 80:
            raise ValueError(f"{self.selection} and {self.report} percent are held out: leave at least 20 to train on")
        return self
