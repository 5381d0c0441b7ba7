"""What a run is asked for: the forms of the Prefect UI, filled in by `stockpot run` too. Knows nothing of Prefect."""

import contextlib
from collections.abc import Iterator
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from components.chain import Chain, open_chain
from components.recipe.loader import find, in_force, load
from components.runtime import load_runtime
from components.settings import Settings

Text = Annotated[str | None, BeforeValidator(lambda text: text or None)]
"""A field of the UI that was emptied holds an empty text."""


class Form(BaseModel):
    """Which recipe, over which data, on which machine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: Text = Field(default=None, description="a name in recipes/, or the path of a file; empty: the recipe in force in this checkout")
    data_revision: Text = Field(
        default=None, description="git branch, tag or commit that the sources are taken from, as git or DVC tracks them there; empty: the files as they are"
    )
    profile: Text = Field(default=None, description="runtime profile, a name in infra/profiles/; empty: STOCKPOT_PROFILE")
    overrides: list[str] = Field(default=[], description="recipe keys, as in `--set`: stages.instruct.lr=1e-5")

    @contextlib.contextmanager
    def open(self, run: str = "") -> Iterator[Chain]:
        """The chain that this form asks for, planned, for the flow run of this id. Raises StockpotError for what the user can mend."""
        settings = Settings()
        recipe = load(find(self.recipe or in_force()), self.all_overrides)
        profile = load_runtime(self.profile or settings.profile)
        with open_chain(recipe, settings, profile=profile, revision=self.data_revision, run=run) as chain:
            yield chain

    @property
    def all_overrides(self) -> list[str]:
        """The overrides, and what other fields add to them."""
        return self.overrides


class GateForm(Form):
    """And how strict the gate is."""

    gate_minimum: float | None = Field(default=None, ge=0, le=1, description="lowest overall score that may become champion, 0 to 1; empty: as the recipe says")
    gate_margin: float | None = Field(
        default=None, ge=0, le=1, description="the new score must exceed the champion's by more than this, 0 to 1; empty: as the recipe says"
    )

    @property
    def all_overrides(self) -> list[str]:
        strict = {"gate.minimum": self.gate_minimum, "gate.margin": self.gate_margin}
        return [*self.overrides, *(f"{key}={value}" for key, value in strict.items() if value is not None)]
