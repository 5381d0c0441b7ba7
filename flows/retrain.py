"""The chain: draw, ingest, rewrite, llm, curate, train, soup, evaluate, package, promote. One task per step; finished ones are reused."""

from typing import Any

from prefect import flow

from flows.follow import follow
from flows.form import GateForm


@flow(name="retrain")
def retrain(form: GateForm = GateForm(), use: bool = False) -> Any:  # noqa: B008  frozen
    """Raw data in, a gated model in the registry out. With nothing new it ends at once.

    Args:
        form: What to run.
        use: Also put the recipe in force in the checkout.
    """
    return follow(form, "promote", use=use)
