"""The judge that a recipe names: a training stage's language model, or an endpoint."""

import os
from pathlib import Path

from components.curation.judge import Judge
from components.profile import step_profile
from components.recipe.curation import Endpoint
from components.step import Step


def open_judge(judge: str | Endpoint, step: Step) -> Judge:
    """Raises SetupError when an endpoint's key is not there, DataError when a stage's model is not whole."""
    profile = step_profile()
    if isinstance(judge, Endpoint):
        from components.curation.answers import Answers
        from components.curation.endpoint_judge import EndpointJudge

        folder = Path(os.environ.get("STOCKPOT_ANSWERS", ".stockpot/answers"))
        return EndpointJudge(judge, Answers(folder / "answers.sqlite"), profile.judge_requests)
    import torch

    from components.curation.local_judge import LocalJudge

    torch.set_num_threads(profile.threads)
    return LocalJudge(step.input(judge))
