"""Which models compete: the candidates of the last training stage, and where their steps left them."""

from pathlib import Path

from components.errors import RecipeError
from components.step import Step


def candidates(step: Step) -> dict[str, Path]:
    """Candidate name -> model directory, in the recipe's order; empty when the last stage has no candidates.

    Raises RecipeError when a model is not there.
    """
    stages = step.param("stages")
    last = list(stages)[-1]
    names = list(stages[last].get("candidates") or {})
    if "soup" in names:
        raise RecipeError(f"stages.{last}.candidates.soup: the name is taken by the soup itself in every report: rename the candidate")
    return {name: step.input(f"{last}-{name}") for name in names}


def last_stage(step: Step) -> dict[str, Path]:
    """Name and model directory of a last stage without candidates. Raises RecipeError when it is not there."""
    name = list(step.param("stages"))[-1]
    return {name: step.input(name)}
