"""What would keep a profile's pods from running, found before anything is submitted, as far as our account may see it."""

from collections.abc import Sequence
from pathlib import Path

from components.errors import SetupError
from components.pipeline.bundle import Bundle
from components.pipeline.cluster.api import Api
from components.pipeline.cluster.job import manifest
from components.runtime import Cluster, Runtime

JOB_VERBS = ("create", "get", "list", "watch", "patch", "delete")
RIGHTS = [*((verb, "batch", "jobs", "") for verb in JOB_VERBS), ("list", "", "pods", ""), ("get", "", "pods", "log")]
"""What a flow's account needs in the namespace, and no more."""


def check_places(cluster: Cluster, remote: str, store: str) -> None:
    """Raises SetupError for a remote, a store or an image that pods can not reach."""
    if not remote:
        raise SetupError("the DVC project has no default remote: pods take their inputs from there: `dvc remote add -d NAME s3://bucket/path`")
    for title, place in (("the DVC remote", remote), ("STOCKPOT_STORE", store)):
        mounted = any(Path(place).is_relative_to(v.path) and not v.read_only for v in cluster.volumes)
        if "://" not in place and not mounted:
            raise SetupError(f"{title} {place}: a folder of this machine, which pods do not see: name s3://bucket/prefix, or mount it (volumes in the profile)")
    if cluster.image.endswith("0" * 64):
        raise SetupError(f"{cluster.image}: a placeholder: build and push the image, and write its digest into the runtime profile (docs/how-to/cluster.md)")


def check(api: Api, runtime: Runtime, stages: Sequence[str], environment: dict[str, str]) -> None:
    """Raises SetupError with the first thing that is wrong: rights, namespace, fields, admission, secrets, GPUs that no node has."""
    cluster = runtime.cluster
    assert cluster is not None
    for stage in stages:
        api.try_job(manifest(Bundle("0" * 64, stage, {}, {}), "check", runtime, "check", environment))
    missing = [f"{verb} {resource}{'/' * bool(part)}{part}" for verb, group, resource, part in RIGHTS if not api.may(verb, group, resource, part)]
    if missing:
        remedy = "give the account the Role of infra/kubernetes/base"
        raise SetupError(f"namespace {cluster.namespace}: no right to {', '.join(missing)}: {remedy}")
    for secret in sorted({*cluster.secrets, *cluster.pull_secrets, *(s.secret for s in cluster.secret_env.values())}):
        if api.has_secret(secret) is False:
            raise SetupError(f"namespace {cluster.namespace}: there is no secret {secret}: create it, or name another in the runtime profile")
    _check_gpus(api, runtime, stages)


def _check_gpus(api: Api, runtime: Runtime, stages: Sequence[str]) -> None:
    cluster = runtime.cluster
    assert cluster is not None
    nodes = None if cluster.autoscaled else api.list_nodes()
    if nodes is None:
        return
    selector = {**cluster.node_selector, **cluster.gpu_selector}
    fitting = [n for n in nodes if all((n["metadata"].get("labels") or {}).get(k) == v for k, v in selector.items())]
    most = max((int((n.get("status") or {}).get("allocatable", {}).get(cluster.gpu_resource, 0)) for n in fitting), default=0)
    for stage in stages:
        if (gpus := cluster.request(stage).gpus) > most:
            labels = ", ".join(f"{k}={v}" for k, v in selector.items())
            where = f"any node{f' with {labels}' if labels else ''} has at most {most}"
            remedy = "change requests or gpu_selector in the runtime profile (autoscaled, if nodes come on demand)"
            raise SetupError(f"{stage}: asks for {gpus} {cluster.gpu_resource}, and {where}: {remedy}")
