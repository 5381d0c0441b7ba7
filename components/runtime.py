"""Runtime profile, whole: how steps compute (`components.profile`) and where units run. Small YAML files in `infra/profiles/`.

Never part of a step's identity: a step sees only the part that is a `Profile`.
"""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from components.errors import RecipeError
from components.profile import Profile
from components.recipe.loader import read_yaml, sentence
from components.steps_table import STEPS

Quantity = Annotated[str, StringConstraints(pattern=r"^\d+(\.\d+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"), Field(coerce_numbers_to_str=True)]
"""An amount as Kubernetes writes it: 500m, 4, 16Gi."""
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", max_length=253)]


def _by_digest(image: str) -> str:
    if not re.fullmatch(r"[^@\s]+@sha256:[0-9a-f]{64}", image):
        raise ValueError(f"{image}: name the image by its digest, NAME@sha256:..., which `docker push` prints: a tag may be another image tomorrow")
    return image


ByDigest = Annotated[str, AfterValidator(_by_digest)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Request(_Section):
    """What a pod asks for and may use. What a kind of stage does not say, `default` says."""

    cpu: Quantity = Field(default="1", description="CPU cores")
    memory: Quantity = Field(default="4Gi", description="memory, request and limit")
    gpus: int = Field(default=0, ge=0, description="GPUs")
    shm: Quantity | None = Field(default=None, description="size of /dev/shm, part of the memory; empty: the node's default of 64Mi")


class SecretKey(_Section):
    """One key of a secret."""

    secret: Name = Field(description="name of the secret")
    key: str = Field(description="key in the secret")


class Toleration(_Section):
    """A taint that pods may be placed in spite of."""

    key: str = Field(description="key of the taint")
    value: str | None = Field(default=None, description="its value; empty: any")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(default=None, description="its effect; empty: any")


class Volume(_Section):
    """A claim that every pod mounts."""

    claim: Name = Field(description="name of the PersistentVolumeClaim")
    path: str = Field(pattern="^/", description="where it is mounted")
    read_only: bool = Field(default=True, description="whether pods may not write there")


class Scratch(_Section):
    """Where a unit works: its workspace and its part of the DVC cache."""

    size: Quantity | None = Field(default=None, description="limit of an empty folder on the node's disk; empty: none")
    claim: Name | None = Field(default=None, description="a PersistentVolumeClaim instead of the node's disk")


class Cluster(_Section):
    """Where in which cluster, and as what."""

    image: ByDigest = Field(description="container image, by digest: NAME@sha256:...")
    namespace: Name = Field(default="stockpot", description="namespace of the Jobs")
    context: str | None = Field(default=None, description="context of the kubeconfig; empty: the current one, or the pod's own account inside a cluster")
    service_account: Name = Field(default="stockpot-unit", description="account of the pods, which gives them the object store")
    pull_secrets: list[Name] = Field(default=[], description="secrets for the image's registry")
    requests: dict[str, Request] = Field(default={}, description="what pods ask for: `default`, and what differs for a kind of stage")
    gpu_resource: str = Field(default="nvidia.com/gpu", description="the resource that GPUs are")
    gpu_selector: dict[str, str] = Field(default={}, description="node labels for pods with GPUs, such as nvidia.com/gpu.product")
    node_selector: dict[str, str] = Field(default={}, description="node labels for all pods")
    tolerations: list[Toleration] = Field(default=[], description="taints that all pods tolerate")
    autoscaled: bool = Field(default=False, description="nodes come when pods ask for them: GPUs are not compared with the nodes that are there")
    priority_class: Name | None = Field(default=None, description="priority class of the pods")
    env: dict[str, str] = Field(default={}, description="environment of the pods")
    secret_env: dict[str, SecretKey] = Field(default={}, description="environment from secrets: variable -> {secret, key}")
    secrets: list[Name] = Field(default=[], description="secrets of which every key becomes a variable")
    volumes: list[Volume] = Field(default=[], description="claims that every pod mounts")
    scratch: Scratch = Field(default=Scratch(), description="where a unit works")
    user: int = Field(default=10001, gt=0, description="user id of the pods")
    pending_seconds: float = Field(default=3600, gt=0, description="how long a pod may wait for a node, seconds")
    image_seconds: float = Field(default=300, gt=0, description="how long an image may fail to be pulled, seconds")
    orphan_seconds: float = Field(default=3600, gt=0, description="a Job of a run that gives no sign of life for so long is deleted by the next run, seconds")
    keep_seconds: int = Field(default=86_400, ge=0, description="how long a finished Job is kept, with its log, seconds")

    @model_validator(mode="after")
    def _check(self) -> "Cluster":
        kinds = ["default", *STEPS]
        if unknown := sorted(set(self.requests) - set(kinds)):
            raise ValueError(f"requests: unknown: {', '.join(unknown)}: a kind of stage is one of {', '.join(kinds)}")
        return self

    def request(self, stage: str) -> Request:
        """What the pod of a stage asks for."""
        kind = stage.partition("-")[0]
        base, own = self.requests.get("default", Request()), self.requests.get(kind if kind in STEPS else "train")
        return base.model_copy(update={k: getattr(own, k) for k in own.model_fields_set}) if own else base


class Runtime(Profile):
    """One machine or cluster, cut up."""

    launch: Literal["local", "kubernetes"] = Field(default="local", description="where a unit runs: `local` process or `kubernetes` Job")
    cluster: Cluster | None = Field(default=None, description="for `kubernetes`: see the guide to clusters")

    @model_validator(mode="after")
    def _check(self) -> "Runtime":
        if (self.launch == "kubernetes") != (self.cluster is not None):
            raise ValueError("cluster: to be given with `launch: kubernetes`, and only then")
        if self.cluster and (gpus := self.cluster.request("train").gpus) and gpus != self.processes:
            raise ValueError(f"requests: a training pod gets {gpus} GPUs for {self.processes} processes: one process per GPU")
        return self

    def for_step(self) -> Profile:
        """The part that a step sees."""
        return Profile.model_validate(self.model_dump(include=set(Profile.model_fields)))


def load_runtime(name: str, folder: Path = Path("infra/profiles")) -> Runtime:
    """A profile by name or path. Raises RecipeError that names the file and every wrong key."""
    path = Path(name) if Path(name).is_file() else folder / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.yaml"))) or "none"
        raise RecipeError(f"{path}: no such runtime profile; known in {folder}/: {known}")
    try:
        return Runtime.model_validate(read_yaml(path) or {})
    except ValidationError as error:
        raise RecipeError("\n".join(sentence(str(path), e, Runtime) for e in error.errors())) from error
