"""The annotator that a recipe names: a training stage's language model, an endpoint, or a published model."""

import os
from pathlib import Path

from components.curation.annotator import Annotator
from components.curation.answers import Answers
from components.profile import step_profile
from components.recipe.annotator import Endpoint
from components.recipe.published import Published
from components.step import Step


def open_annotator(named: str | Endpoint | Published, step: Step) -> Annotator:
    """Raises SetupError when an endpoint's key is not there, DataError when a model is not whole, TransientError when the hub does not answer."""
    profile, kept = step_profile(), Path(os.environ.get("STOCKPOT_ANSWERS", ".stockpot/answers"))
    if isinstance(named, Endpoint):
        from components.curation.endpoint import EndpointAnnotator

        return EndpointAnnotator(named, Answers(kept / "answers.sqlite"), profile.judge_requests, per_minute=profile.judge_requests_per_minute)
    import torch

    torch.set_num_threads(profile.threads)
    if isinstance(named, Published):
        from components.curation.published_annotator import PublishedAnnotator

        return PublishedAnnotator(named, Answers(kept / "answers.sqlite"), kept / "weights")
    from components.curation.stage_annotator import StageAnnotator

    return StageAnnotator(step.input(named))
