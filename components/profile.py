"""Runtime profile: how a machine runs units. Small YAML files in `infra/profiles/`; never part of a step's identity."""

import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from components.errors import RecipeError


class Profile(BaseModel):
    """One machine, cut up."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    launch: Literal["local"] = Field(default="local", description="where a unit runs: a local process")
    parallel_units: int = Field(default=2, ge=1, description="units that run at the same time")
    processes: int = Field(default=1, ge=1, description="training processes of one unit (ranks)")
    threads: int = Field(default=1, ge=1, description="CPU threads per process; 1 makes digests equal between runs")
    zero_stage: Literal[0, 1, 2, 3] = Field(default=0, description="DeepSpeed ZeRO stage")
    precision: Literal["fp32", "bf16"] = Field(default="fp32", description="dtype of weights and activations in training")
    judge_requests: int = Field(default=8, ge=1, description="requests to a judge's endpoint at the same time")
    checkpoint_seconds: float = Field(default=60, gt=0, description="time between two training checkpoints, seconds")
    grace_seconds: float = Field(default=20, gt=0, description="time between SIGTERM and SIGKILL, seconds; a checkpoint must fit in")
    unit_timeout_seconds: float = Field(default=86_400, gt=0, description="a unit that runs longer is stopped, seconds")


def load_profile(name: str, folder: Path = Path("infra/profiles")) -> Profile:
    """A profile by name or path. Raises RecipeError that names the file and the key."""
    path = Path(name) if Path(name).is_file() else folder / f"{name}.yaml"
    try:
        return Profile.model_validate(YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8")) or {})
    except FileNotFoundError as error:
        known = ", ".join(sorted(p.stem for p in folder.glob("*.yaml"))) or "none"
        raise RecipeError(f"{path}: no such runtime profile; known in {folder}/: {known}") from error
    except YAMLError as error:
        raise RecipeError(f"{path}: not valid YAML: {error}") from error
    except ValidationError as error:
        e = error.errors()[0]
        raise RecipeError(f"{path}: {'.'.join(map(str, e['loc']))}: {e['msg']} (got {e['input']!r})") from error


def step_profile() -> Profile:
    """The profile of the unit that this process runs in (STOCKPOT_UNIT_PROFILE, JSON, set by the launcher); outside one, the defaults.

    Raises RecipeError when the variable holds something else.
    """
    try:
        return Profile.model_validate_json(os.environ.get("STOCKPOT_UNIT_PROFILE") or "{}")
    except ValidationError as error:
        e = error.errors()[0]
        raise RecipeError(f"STOCKPOT_UNIT_PROFILE: {'.'.join(map(str, e['loc']))}: {e['msg']}: unset it: the launcher sets it") from error
