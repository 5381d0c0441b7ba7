"""Which module is the body of which step, and which step holds a source's rows."""

from collections.abc import Sequence

STEPS = {
    "draw": "components.data.draw",
    "ingest": "components.data.ingest",
    "rewrite": "components.curation.rewrite",
    "curate": "components.curation.curate",
    "weights": "components.weights.step",
    "train": "components.training.stage",
    "soup": "components.soup.step",
    "evaluate": "components.evaluation.step",
    "package": "components.registry.package",
}
"""Step kind -> module with `run(step)`. Names, not imports: a step loads only what it needs, and only that is its code."""


def module_of(name: str) -> str:
    """The module of the step `name`. Everything that is no fixed step is a training stage."""
    kind = name.partition("-")[0]
    return STEPS.get(kind, STEPS["train"])


def rows_step(source: str, rewrites: Sequence[object]) -> str:
    """The step whose output holds the rows of a source before curation: the one that rewrites them, where the recipe has rewrites."""
    return f"rewrite-{source}" if rewrites else f"ingest-{source}"
