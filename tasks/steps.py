"""One task per kind of step: its name and policy; the work is one call down."""

from typing import Any

from prefect import task
from prefect.states import Completed

from components.pipeline.execute import Done
from tasks.policy import POLICY
from tasks.session import Session


def _run(session: Session, stage: str, upstream: dict[str, Done]) -> Any:
    """Finishes one step; a step that was finished before shows as Cached."""
    done = session.step(stage, upstream)
    return Completed(name="Cached", message="reused: same code, inputs and parameters", data=done) if done.reused else done


def _step(kind: str, *tags: str) -> Any:
    return task(name=kind, description=f"Pipeline step `{kind}`", task_run_name="{stage}", tags=["step", *tags], **POLICY)(_run)


draw = _step("draw")
ingest = _step("ingest")
rewrite = _step("rewrite")
weights = _step("weights")
curate = _step("curate")
train = _step("train", "gpu")
soup = _step("soup")
evaluate = _step("evaluate", "gpu")
package = _step("package")
