"""The gate: registers the packaged model and lets it become champion, or not. Runs every time; safe to repeat."""

from typing import Any

from prefect import task

from components.pipeline.execute import Done
from tasks.policy import POLICY
from tasks.session import Session


@task(name="promote", task_run_name="promote", tags=["registry"], **POLICY)
def promote(session: Session, upstream: dict[str, Done]) -> Any:
    """The outcome: version, alias, whether it was promoted, and why."""
    return session.promote(upstream)
