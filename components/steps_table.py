"""Which module is the body of which step."""

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
