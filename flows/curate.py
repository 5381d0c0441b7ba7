"""The data steps alone: draw, ingest, and what curation needs, up to the clean rows."""

from typing import Any

from prefect import flow

from flows.follow import follow
from flows.form import Form


@flow(name="curate")
def curate(form: Form = Form()) -> Any:  # noqa: B008  frozen
    """Raw data in, clean rows out. With nothing new it ends at once.

    Args:
        form: What to run.
    """
    return follow(form, "curate")
