"""The Job of a unit."""

import json
import math
import re
from typing import Any

from components.pipeline.bundle import Bundle
from components.pipeline.cluster.api import MANAGED, Object
from components.runtime import Cluster, Request, Runtime

SCRATCH = "/scratch"
IDENTITY, STAGE, RUN, ALIVE = "stockpot/identity", "stockpot/stage", "stockpot/run", "stockpot/alive"
"""`alive`: when the run that waits for the Job last said so, ISO 8601 in UTC."""
SLACK_SECONDS = 10
"""Between the end of a step's grace time and the end of its pod's: time for the wrapper to say how it ended."""


def job_name(stage: str, identity: str) -> str:
    """`stockpot-<stage>-<key>`: at most 52 characters, so that the names of its pods are host names too; unique by the key also where the stage is cut."""
    slug = re.sub(r"[^a-z0-9]+", "-", stage.lower()).strip("-")[:26].rstrip("-")
    return f"stockpot-{slug}-{identity[:16]}".replace("--", "-")


def manifest(bundle: Bundle, uri: str, runtime: Runtime, run: str, environment: dict[str, str]) -> Object:
    """One pod, tried once: the task of the flow tries again. `environment` comes before the profile's own."""
    cluster = runtime.cluster
    assert cluster is not None
    labels = {**MANAGED, "app.kubernetes.io/name": "stockpot", STAGE: _label(bundle.stage), RUN: _label(run)}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": job_name(bundle.stage, bundle.identity), "labels": labels, "annotations": {IDENTITY: bundle.identity}},
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": math.ceil(runtime.unit_timeout_seconds),
            "ttlSecondsAfterFinished": cluster.keep_seconds,
            "template": {"metadata": {"labels": labels, "annotations": {IDENTITY: bundle.identity}}, "spec": _pod(bundle, uri, runtime, cluster, environment)},
        },
    }


def _pod(bundle: Bundle, uri: str, runtime: Runtime, cluster: Cluster, environment: dict[str, str]) -> Object:
    request = cluster.request(bundle.stage)
    volumes, mounts = _volumes(cluster, request)
    spec: Object = {
        "restartPolicy": "Never",
        "serviceAccountName": cluster.service_account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": math.ceil(runtime.grace_seconds) + SLACK_SECONDS,
        "nodeSelector": {**cluster.node_selector, **(cluster.gpu_selector if request.gpus else {})},
        "tolerations": [_toleration(t.key, t.value, t.effect) for t in cluster.tolerations],
        "imagePullSecrets": [{"name": n} for n in cluster.pull_secrets],
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": cluster.user,
            "runAsGroup": cluster.user,
            "fsGroup": cluster.user,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumes": volumes,
        "containers": [
            {
                "name": "unit",
                "image": cluster.image,
                "command": ["python", "-m", "components.pipeline.unit", uri],
                "workingDir": SCRATCH,
                "env": _environment(runtime, cluster, environment),
                "envFrom": [{"secretRef": {"name": n}} for n in cluster.secrets],
                "resources": _resources(cluster, request),
                "volumeMounts": mounts,
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "securityContext": {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}},
            }
        ],
    }
    if cluster.priority_class:
        spec["priorityClassName"] = cluster.priority_class
    return {k: v for k, v in spec.items() if v not in ([], {})}


def _environment(runtime: Runtime, cluster: Cluster, environment: dict[str, str]) -> list[Object]:
    profile = runtime.for_step()
    known = {
        **environment,
        "STOCKPOT_GRACE": str(profile.grace_seconds),
        "STOCKPOT_UNIT_PROFILE": profile.model_dump_json(),
        "OMP_NUM_THREADS": str(profile.threads),
        **cluster.env,
    }
    secrets = {k: {"secretKeyRef": {"name": s.secret, "key": s.key}} for k, s in cluster.secret_env.items()}
    return [{"name": k, "value": v} for k, v in sorted(known.items()) if k not in secrets] + [{"name": k, "valueFrom": v} for k, v in sorted(secrets.items())]


def _resources(cluster: Cluster, request: Request) -> Object:
    gpus = {cluster.gpu_resource: str(request.gpus)} if request.gpus else {}
    return {"requests": {"cpu": request.cpu, "memory": request.memory, **gpus}, "limits": {"memory": request.memory, **gpus}}


def _volumes(cluster: Cluster, request: Request) -> tuple[list[Object], list[Object]]:
    scratch: Object = {"emptyDir": {"sizeLimit": cluster.scratch.size} if cluster.scratch.size else {}}
    if cluster.scratch.claim:
        scratch = {"persistentVolumeClaim": {"claimName": cluster.scratch.claim}}
    volumes: list[Object] = [{"name": "scratch", **scratch}, {"name": "tmp", "emptyDir": {}}]
    mounts: list[Object] = [{"name": "scratch", "mountPath": SCRATCH}, {"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108  the pod's own
    if request.shm:
        volumes.append({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": request.shm}})
        mounts.append({"name": "shm", "mountPath": "/dev/shm"})  # noqa: S108
    for i, volume in enumerate(cluster.volumes):
        volumes.append({"name": f"claim-{i}", "persistentVolumeClaim": {"claimName": volume.claim, "readOnly": volume.read_only}})
        mounts.append({"name": f"claim-{i}", "mountPath": volume.path, "readOnly": volume.read_only})
    return volumes, mounts


def _toleration(key: str, value: str | None, effect: str | None) -> Object:
    found: Object = {"key": key, "operator": "Exists"} if value is None else {"key": key, "operator": "Equal", "value": value}
    return {**found, "effect": effect} if effect else found


def _label(text: str) -> str:
    """At most 63 letters, digits, `-`, `_` and `.`, with a letter or digit at both ends."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text)[:63].strip("-_.")


def condition(job: Object, kind: str) -> Object | None:
    """A condition of a Job that is True. A fresh Job has no status."""
    found: list[dict[str, Any]] = (job.get("status") or {}).get("conditions") or []
    return next((c for c in found if c["type"] == kind and c["status"] == "True"), None)


def over(job: Object) -> bool:
    """Whether it has ended, well or not."""
    return condition(job, "Complete") is not None or condition(job, "Failed") is not None


def owned_by(pod: Object, job: Object) -> bool:
    """Whether the pod is of this very Job: an earlier one of the same name had the same labels."""
    return any(r["uid"] == job["metadata"]["uid"] for r in pod["metadata"].get("ownerReferences") or [])


def summary(obj: Object) -> str:
    """For messages: a condition's or state's reason and message."""
    return ": ".join(filter(None, [obj.get("reason"), obj.get("message")])) or json.dumps(obj)
