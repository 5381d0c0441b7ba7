"""`sources`: where the training rows come from."""

from typing import Literal

from pydantic import Field

from components.recipe.base import Section


class Source(Section):
    """One set of rows in one format."""

    format: Literal["llava"] = Field(default="llava", description="llava: LLaVA JSON or JSONL, rows of `id`, `image`, `conversations`")
    path: str = Field(description="the file, relative to the project; a path under `out/draw/data/` is drawn by the recipe")
    images: str | None = Field(default=None, description="folder that the rows' image paths are relative to; null for text-only rows")
    language: Literal["en", "zh"] = Field(default="en", description="language of the rows that do not name their own")
    category: str = Field(default="general", description="what kind of data this is: caption, qa, ocr, text, ...")
    license: str = Field(default="unknown", description="licence of the rows that do not name their own")
    max_pixels: int = Field(default=50_000_000, gt=0, description="larger pictures are quarantined before they are decoded, pixels")
