"""`gate`: what a new model must reach to become champion. Not part of any step's identity: promotion is judged afresh every time."""

from pydantic import Field

from components.recipe.base import Section


class Gate(Section):
    """The new overall score must be strictly greater than the champion's by more than `margin`, and at least `minimum`."""

    minimum: float = Field(default=0.0, ge=0, le=1, description="lowest overall score that may become champion, 0 to 1")
    margin: float = Field(default=0.0, ge=0, le=1, description="the new overall score must exceed the champion's by more than this, 0 to 1")
