"""One training step of the pipeline. All stages and candidates run through this; what differs is the recipe."""

from components.profile import step_profile
from components.step import Step
from components.training.launch import run_workers
from components.training.rank import train


def run(step: Step) -> None:
    """Trains the stage or candidate `step` and writes its model folder, summary.json and loss.csv. Raises StockpotError."""
    profile = step_profile()
    if profile.processes > 1:
        run_workers(step.name, profile)
    else:
        train(step, profile)
