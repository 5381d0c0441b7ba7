"""`curation.mixture`: how many of the rows that the filters kept are taken of each source."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from components.recipe.base import Name, Section


class _Mixture(Section):
    rows: PositiveInt | None = Field(
        default=None,
        description="rows in all; a source that has too few gives all it has, and the others more. null: as many as there can be in exactly these shares",
    )
    repeats: dict[Name, PositiveInt] = Field(default={}, description="sources that count, and may be taken, several times over: {captions: 3}; the others once")


class _OfSources(_Mixture):
    sources: list[Name] | None = Field(default=None, description="sources that are mixed; the others stay whole; null: all")


class Proportional(_OfSources):
    """Each source by its number of kept rows. Without `rows`, and without `repeats`, nothing is taken out."""

    kind: Literal["proportional"] = "proportional"


class Sqrt(_OfSources):
    """Each source by the square root of its number of kept rows."""

    kind: Literal["sqrt"] = "sqrt"


class Temperature(_OfSources):
    """Each source by its number of kept rows to the power of 1 / temperature (mT5, arXiv:2010.11934): 1 is proportional, 2 the square root."""

    kind: Literal["temperature"] = "temperature"
    temperature: float = Field(gt=0, description="larger ones bring the sources nearer to equal shares")


class Fixed(_Mixture):
    """Shares that the recipe names; sources that it does not name stay whole."""

    kind: Literal["fixed"] = "fixed"
    shares: dict[Name, PositiveInt] = Field(min_length=1, description="parts of the whole by source: {captions: 2, questions: 1} is two rows to one")


class Capped(_OfSources):
    """Each source by its number of kept rows, but at most `cap` (T5's artificial limit on a data set's size, arXiv:1910.10683, section 3.5.2)."""

    kind: Literal["capped"] = "capped"
    cap: int = Field(gt=0, description="most rows of one source, rows")


Mixture = Annotated[Proportional | Sqrt | Temperature | Fixed | Capped, Field(discriminator="kind")]
