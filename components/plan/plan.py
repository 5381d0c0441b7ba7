"""A recipe's plan: a row for each training run, from the recipe and the machine alone."""

from collections.abc import Iterator
from dataclasses import dataclass

from components.models.build import vlm_config
from components.models.checkpoint import shapes
from components.plan.cost import Count, Machine, activation_bytes, gpu_hours, state_bytes, work_per_token
from components.recipe.recipe import Recipe
from components.recipe.training import TrainingConfig

IMAGE_TOKEN = 0
"""Any id: counts do not depend on it."""


@dataclass(frozen=True)
class Line:
    """One training run. `steps`, `tokens` and `gpu_hours` are None where they depend on how many rows there are."""

    name: str
    trained: int
    frozen: int
    steps: int | None
    tokens: int | None
    """at most: full rows"""
    memory_bytes: int
    gpu_hours: float | None


def group_sizes(recipe: Recipe) -> dict[str, int]:
    """Parameters by module group, from a model that allocates nothing."""
    sizes = {"vision": 0, "connector": 0, "llm": 0}
    for name, shape in shapes(vlm_config(recipe.model, recipe.model.llm.vocab, IMAGE_TOKEN)).items():
        number = 1
        for side in shape:
            number *= side
        sizes[name.partition(".")[0]] += number
    return sizes


def plan(recipe: Recipe, machine: Machine) -> list[Line]:
    """The recipe's training runs in order, candidates one by one."""
    sizes = group_sizes(recipe)
    return [_line(name, config, recipe, sizes, machine) for name, config in _runs(recipe)]


def _runs(recipe: Recipe) -> Iterator[tuple[str, TrainingConfig]]:
    for name, stage in recipe.stages.items():
        if not stage.candidates:
            yield name, stage
        for candidate in stage.candidates:
            yield f"{name}-{candidate}", stage.candidate(candidate)


def _line(name: str, config: TrainingConfig, recipe: Recipe, sizes: dict[str, int], machine: Machine) -> Line:
    trained: set[str] = set(config.trainable)
    count = Count(sum(sizes[g] for g in trained), sum(size for g, size in sizes.items() if g not in trained))
    row = config.batch.max_tokens
    steps = config.schedule.steps
    tokens = None if steps is None else steps * (config.batch.packs or config.batch.samples or 0) * row
    seen = {"lm": sizes, "text": {**sizes, "vision": 0, "connector": 0}, "contrastive": {**sizes, "connector": 0}}[config.objective]
    work = work_per_token(recipe.model, seen, trained, row)
    if config.objective == "contrastive":  # once forward for the embeddings, then as ever
        work += work_per_token(recipe.model, seen, set(), row)
    memory = state_bytes(count, machine) + activation_bytes(recipe.model, row, machine, vision_learns="vision" in trained)
    hours = None if tokens is None else gpu_hours(tokens * work, machine)
    return Line(name, count.trained, count.frozen, steps, tokens, memory, hours)
