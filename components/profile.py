"""How a step computes on the machine that it runs on: the part of a runtime profile (`components.runtime`) that steps see."""

import os
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components.errors import RecipeError


class Profile(BaseModel):
    """What may differ between machines without changing what a step is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    parallel_units: int = Field(default=2, ge=1, description="units that run at the same time")
    processes: int = Field(default=1, ge=1, description="training processes of one unit (ranks)")
    threads: int = Field(default=1, ge=1, description="CPU threads per process; 1 makes digests equal between runs")
    zero_stage: Literal[0, 1, 2, 3] = Field(default=0, description="DeepSpeed ZeRO stage")
    precision: Literal["fp32", "bf16"] = Field(default="fp32", description="dtype of weights and activations in training")
    loader_workers: int = Field(default=0, ge=0, description="processes per rank that encode rows and prepare batches ahead; 0: the rank does it itself")
    judge_requests: int = Field(default=8, ge=1, description="requests to a judge's endpoint at the same time")
    judge_requests_per_minute: float | None = Field(default=None, gt=0, description="most requests that one step sends to an endpoint; null: no limit")
    data_workers: int = Field(default=1, ge=1, description="processes that curate, one shard of rows each; more than 1 is worth it for many pictures")
    data_engine: Literal["local", "ray"] = Field(default="local", description="where they run: `local` on this machine, or `ray`")
    ray_address: str | None = Field(
        default=None, pattern=r"^[^:/]+:\d+$", description="for `ray`: a cluster that runs already, `HOST:PORT`; empty: the step starts one of its own here"
    )
    checkpoint_seconds: float = Field(default=60, gt=0, description="time between two training checkpoints, seconds")
    grace_seconds: float = Field(default=20, gt=0, description="time between SIGTERM and SIGKILL, seconds; a checkpoint must fit in")
    unit_timeout_seconds: float = Field(default=86_400, gt=0, description="a unit that runs longer is stopped, seconds")


def step_profile() -> Profile:
    """The profile of the unit that this process runs in (STOCKPOT_UNIT_PROFILE, JSON, set by the launcher); outside one, the defaults.

    Raises RecipeError when the variable holds something else.
    """
    try:
        return Profile.model_validate_json(os.environ.get("STOCKPOT_UNIT_PROFILE") or "{}")
    except ValidationError as error:
        e = error.errors()[0]
        raise RecipeError(f"STOCKPOT_UNIT_PROFILE: {'.'.join(map(str, e['loc']))}: {e['msg']}: unset it: the launcher sets it") from error
