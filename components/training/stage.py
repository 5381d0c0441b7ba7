"""One training step of the pipeline. All stages and candidates run through this; what differs is the recipe."""

from components.profile import step_profile
from components.step import Step


def run(step: Step) -> None:
    """Trains the stage or candidate `step` and writes its model folder, summary.json and loss.csv. Raises StockpotError."""
    profile = step_profile()
    if profile.processes > 1:
        from components.training.launch import run_workers

        run_workers(step.name, profile)
    else:
        from components.training.rank import train  # here: with several processes this one needs no torch

        train(step, profile)
