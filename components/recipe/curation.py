"""`curation`: filters in the order in which they look at the rows. Each filter's config names it by `kind`."""

from typing import Annotated, Literal

from pydantic import Field

from components.recipe.base import Name, Section


class ImageValidity(Section):
    """Pictures that cannot be decoded whole, or are too large, go to quarantine."""

    kind: Literal["image_validity"] = "image_validity"
    max_pixels: int = Field(default=50_000_000, gt=0, description="larger pictures are refused before they are decoded, pixels")


class ExactDuplicates(Section):
    """Rows whose messages and decoded pictures are equal to an earlier row's are dropped."""

    kind: Literal["exact_duplicates"] = "exact_duplicates"


class Perplexity(Section):
    """Keeps the rows that a language model finds most likely (POINTS1.5, section 3: the lowest-perplexity 20 %)."""

    kind: Literal["perplexity"] = "perplexity"
    scorer: Name = Field(default="llm", description="training stage whose language model scores the text")
    sources: list[Name] = Field(description="sources that are ranked, each by itself and per language; the others pass")
    keep_percent: int = Field(default=20, ge=1, le=100, description="share of the scored rows that is kept, percent")


Filter = Annotated[ImageValidity | ExactDuplicates | Perplexity, Field(discriminator="kind")]


class Curation(Section):
    """Which rows reach the vision-language stages."""

    filters: list[Filter] = Field(description="applied in this order; a filter sees what the ones before it kept")
    max_quarantine_percent: int = Field(default=100, ge=0, le=100, description="a larger share of quarantined rows stops the run, percent; 100 = never")
    shard_rows: int = Field(default=4096, gt=0, description="largest number of rows in a Parquet shard, rows")
