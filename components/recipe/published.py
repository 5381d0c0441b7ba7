"""A public checkpoint that a recipe names: weights to start from, or a model that curation asks."""

import re

from pydantic import Field, model_validator

from components.recipe.base import Section

HUB_COMMIT = re.compile(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}")


class Published(Section):
    """A public checkpoint. What it holds must be fixed: a folder's files are hashed as inputs, a hub name has its commit, all else a digest."""

    source: str = Field(description="a folder relative to the project, `s3://bucket/prefix`, or a name on the hub: `org/name@commit`")
    digest: str | None = Field(
        default=None, pattern="^[0-9a-f]{64}$", description="`sha256sum *.safetensors | sha256sum` of the shards that hold the part; null: not checked"
    )

    @property
    def folder(self) -> str | None:
        """The folder, where it is one of the project."""
        return None if self.source.startswith("s3://") or "@" in self.source else self.source

    @model_validator(mode="after")
    def _fixed(self) -> "Published":
        if self.source.startswith("s3://") and self.digest is None:
            raise ValueError(f"{self.source}: what lies in a bucket can change: give its digest, `sha256sum *.safetensors | sha256sum`")
        if self.folder is None and not self.source.startswith("s3://") and self.digest is None and not HUB_COMMIT.fullmatch(self.source):
            raise ValueError(f"{self.source}: what a branch names can change: give the commit, 40 digits behind the @, or a digest")
        return self
