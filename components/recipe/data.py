"""`sources`: where the training rows come from."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from components.recipe.base import Section
from components.recipe.rewrites import Rewrite

Language = Annotated[str, StringConstraints(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$")]
"""A BCP 47 code, such as `en`, `zh` or `pt-BR`; `und` where nobody knows."""


class Source(Section):
    """One set of rows in one format."""

    format: Literal["llava"] = Field(default="llava", description="llava: LLaVA JSON or JSONL, rows of `id`, `image`, `conversations`")
    path: str = Field(description="the file, relative to the project; a path under `out/draw/data/` is drawn by the recipe")
    images: str | None = Field(default=None, description="folder that the rows' image paths are relative to; null for text-only rows")
    language: Language | None = Field(
        default="en", description="language code of the rows that do not name their own (BCP 47: `en`, `zh`, `fr`, ...); null: told by the script of each row"
    )
    category: str = Field(default="general", description="what kind of data this is: caption, qa, ocr, text, ...")
    license: str = Field(default="unknown", description="licence of the rows that do not name their own")
    max_pixels: int = Field(default=50_000_000, gt=0, description="larger pictures are quarantined before they are decoded, pixels")
    rewrites: list[Rewrite] = Field(default=[], description="how the rows are written anew before curation, in this order")
