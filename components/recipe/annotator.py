"""Models that curation asks: to choose, to write, to judge. An endpoint, or a published model in the step's own process."""

from pydantic import Field, model_validator

from components.recipe.base import Section
from components.recipe.published import Published


class Endpoint(Section):
    """A model behind a server that speaks OpenAI's protocol: vLLM, SGLang, any vendor. Requests go out at temperature 0."""

    base_url: str = Field(description="address of the server up to and including `/v1`")
    model: str = Field(min_length=1, description="name of the model there")
    api_key_env: str | None = Field(default=None, min_length=1, description="environment variable that holds the key; null: no key is sent")

    @model_validator(mode="after")
    def _is_an_address(self) -> "Endpoint":
        if not self.base_url.startswith(("http://", "https://")):
            raise ValueError(f"base_url: {self.base_url!r} does not begin with http:// or https://")
        return self


Annotator = Endpoint | Published
"""A model that can write: an endpoint, or an image-text-to-text model of the `transformers` library, run greedily."""


def model_folders(section: Section) -> list[str]:
    """Folders of the project that hold published models which a section asks: inputs of its step."""
    named = [getattr(section, field) for field in type(section).model_fields]
    return [value.folder for value in named if isinstance(value, Published) and value.folder]
