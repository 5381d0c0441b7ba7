"""What is tried again, how often, and after what pause."""

from typing import Any

from prefect.cache_policies import NO_CACHE

from components.errors import TransientError
from components.pipeline.launcher import STOP


def worth_retrying(task: Any, task_run: Any, state: Any) -> bool:
    """Transient errors are, unless the run was asked to stop; a wrong recipe, bad data and bugs are not."""
    return not STOP.is_set() and isinstance(state.result(raise_on_failure=False), TransientError)


POLICY: dict[str, Any] = {
    "retries": 3,
    "retry_delay_seconds": [2, 10, 60],
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": worth_retrying,
    "cache_policy": NO_CACHE,  # the record of the unit is the only "done" in the house
    "persist_result": False,
}
