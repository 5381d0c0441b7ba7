"""The gate, for a model whose steps are all done."""

from typing import Any

from prefect import flow

from flows.follow import follow
from flows.form import GateForm


@flow(name="promote")
def promote(form: GateForm = GateForm()) -> Any:  # noqa: B008  frozen
    """Lets the gate decide about a finished model, now. It runs no step: all must be done.

    Args:
        form: What to judge, and how strictly.
    """
    return follow(form, "promote", alone=True)
