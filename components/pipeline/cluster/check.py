"""What would keep a profile's pods from running, found before anything is submitted, as far as our account may see it."""

from collections.abc import Sequence

from components.errors import SetupError
from components.pipeline.bundle import Bundle
from components.pipeline.cluster.api import Api
from components.pipeline.cluster.job import manifest
from components.runtime import Runtime

JOB_VERBS = ("create", "get", "list", "watch", "patch", "delete")
RIGHTS = [*((verb, "batch", "jobs", "") for verb in JOB_VERBS), ("list", "", "pods", ""), ("get", "", "pods", "log")]
"""What a flow's account needs in the namespace, and no more."""


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
    nodes = api.list_nodes()
    if nodes is None:
        return
    selector = {**cluster.node_selector, **cluster.gpu_selector}
    fitting = [n for n in nodes if all((n["metadata"].get("labels") or {}).get(k) == v for k, v in selector.items())]
    most = max((int((n.get("status") or {}).get("allocatable", {}).get(cluster.gpu_resource, 0)) for n in fitting), default=0)
    for stage in stages:
        if (gpus := cluster.request(stage).gpus) > most:
            labels = ", ".join(f"{k}={v}" for k, v in selector.items())
            where = f"any node{f' with {labels}' if labels else ''} has at most {most}"
            raise SetupError(f"{stage}: asks for {gpus} {cluster.gpu_resource}, and {where}: change requests or gpu_selector in the runtime profile")
