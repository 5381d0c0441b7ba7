"""Scores of a finished soup and its candidates, on the benchmarks as they are now."""

from typing import Any

from prefect import flow

from flows.follow import follow
from flows.form import Form


@flow(name="evaluate")
def evaluate(form: Form = Form()) -> Any:  # noqa: B008  frozen
    """Scores a trained model by free generation. It trains nothing: the steps before must be done.

    Args:
        form: What to run.
    """
    return follow(form, "evaluate", alone=True)
