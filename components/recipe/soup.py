"""`soup`: how the candidates become one model."""

from typing import Literal

from pydantic import Field

from components.recipe.base import Section


class Soup(Section):
    """Model soup (Wortsman et al. 2022; POINTS1.5, section 2.4) over the candidates of the last stage."""

    method: Literal["uniform", "greedy"] = Field(
        "greedy", description="uniform: mean of all; greedy: best first, each next kept if the pool's score does not fall"
    )
    selection: str | None = Field(
        default=None, description="VLMEvalKit-style TSV on which greedy scores its pools, never the reported one; null: the rows of `held_out.selection`"
    )
