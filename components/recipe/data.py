"""`sources`: where the training rows come from."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from components.recipe.base import Section
from components.recipe.rewrites import Rewrite

Language = Annotated[str, StringConstraints(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$")]
"""A BCP 47 code, such as `en`, `zh` or `pt-BR`; `und` where nobody knows."""

Format = Literal["llava", "messages", "webdataset", "parquet", "base64", "vlmevalkit"]

S3 = "s3://"
WILDCARDS = "*?["


def fixed_part(path: str) -> str:
    """The path, or of a pattern the folder before its first part with a wildcard: what the rows depend on."""
    parts = path.split("/")
    fixed = next((i for i, part in enumerate(parts) if set(part) & set(WILDCARDS)), len(parts))
    return "/".join(parts[:fixed])


class Columns(Section):
    """Names of the fields of a row, where they are not the usual ones. A row is a conversation, else a question with its answer, else a caption."""

    id: str | None = Field(default=None, description="text or integer, once per source; null: `id`")
    image: str | None = Field(default=None, description="a picture or a list of pictures; null: `image`, `images`, `jpg`, `jpeg`, `png`, `webp`, `img`")
    messages: str | None = Field(default=None, description="a conversation; null: `messages`, `conversations`, `conversation`, `texts`")
    question: str | None = Field(default=None, description="a question; null: `question`")
    answer: str | None = Field(default=None, description="its answer; null: `answer`")
    caption: str | None = Field(default=None, description="a description, or plain text; null: `caption`, `text`, `txt`")
    language: str | None = Field(default=None, description="the row's language; null: `language`")
    license: str | None = Field(default=None, description="the row's licence; null: `license`")


class Source(Section):
    """One set of rows in one format."""

    format: Format = Field(
        default="llava",
        description="llava: JSON or JSONL of `id`, `image`, `conversations`; messages: JSON or JSONL of `messages` or `conversations`; webdataset: tars; "
        "parquet: as on the Hugging Face hub; base64: JSONL with the pictures inside; vlmevalkit: TSV",
    )
    path: str = Field(
        description="a file, a folder, or a pattern with `*` in the last parts, relative to the project or `s3://`; "
        "a path under `out/draw/data/` is drawn by the recipe"
    )
    images: str | None = Field(default=None, description="folder, or `s3://`, that the rows' image paths are relative to; null where rows name no files")
    columns: Columns | None = Field(default=None, description="names of a row's fields that are not the usual ones; not for llava and vlmevalkit")
    language: Language | None = Field(
        default="en", description="language code of the rows that do not name their own (BCP 47: `en`, `zh`, `fr`, ...); null: told by the script of each row"
    )
    category: str = Field(default="general", description="what kind of data this is: caption, qa, ocr, text, ...")
    license: str = Field(default="unknown", description="licence of the rows that do not name their own")
    max_pixels: int = Field(default=50_000_000, gt=0, description="larger pictures are quarantined before they are decoded, pixels")
    rewrites: list[Rewrite] = Field(default=[], description="how the rows are written anew before curation, in this order")

    @model_validator(mode="after")
    def _fits_together(self) -> "Source":
        if self.format in ("llava", "vlmevalkit") and self.columns is not None:
            raise ValueError(f"columns: the fields of {self.format} have fixed names: leave it out, or take another format")
        if fixed_part(self.path) in ("", "s3:", "s3:/", S3):
            raise ValueError(f"path: {self.path!r}: a pattern needs a folder, or a bucket, before it: everything in there is what the rows depend on")
        if self.images and fixed_part(self.images) != self.images:
            raise ValueError(f"images: {self.images!r}: expected a folder; a pattern is for `path`")
        return self

    @property
    def files(self) -> list[str]:
        """Files and folders here that the rows depend on: of a pattern the whole folder."""
        return [fixed_part(p) for p in (self.path, self.images) if p and not p.startswith(S3)]

    @property
    def objects(self) -> list[str]:
        """Addresses on S3 that the rows depend on."""
        return [p for p in (self.path, self.images) if p and p.startswith(S3)]
