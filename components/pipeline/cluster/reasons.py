"""What Kubernetes says of a pod or a Job, in plain words, and whether trying again may help."""

from components.errors import PermanentError, TransientError
from components.pipeline.cluster.api import Object
from components.pipeline.cluster.job import STAGE, condition, summary
from components.pipeline.launcher import End
from components.pipeline.wire import end_of
from components.runtime import Runtime

AGAIN, CHANGE, BUG = TransientError.code, PermanentError.code, 1

DISRUPTIONS = {
    "PreemptionByScheduler": "a pod of higher priority took its place",
    "DeletionByTaintManager": "its node was lost or tainted",
    "EvictionByEvictionAPI": "its node is being drained",
    "DeletionByPodGC": "its node is gone",
    "TerminationByKubelet": "its node ran short of memory or disk, or is shutting down",
}
NEVER = {"InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
"""Reasons of waiting that no waiting mends."""
IMAGE = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable", "ImageInspectError"}


def end_of_job(job: Object, pod: Object | None, runtime: Runtime) -> End:
    """How a Job that is over, or whose pod is, ended. `pod` is None when it is gone, as after a drained or lost node."""
    if condition(job, "Complete"):
        return End(0)
    failed = condition(job, "Failed") or condition(job, "FailureTarget") or {}
    if failed.get("reason") == "DeadlineExceeded":
        return End(AGAIN, "TimedOut", f"stopped after {runtime.unit_timeout_seconds:.0f} s (unit_timeout_seconds of the runtime profile)")
    if pod is None:
        return End(AGAIN, "PodGone", f"its pod is gone without a word (node lost, drained, or deleted by hand): {summary(failed)}")
    return end_of_pod(pod, runtime)


def end_of_pod(pod: Object, runtime: Runtime) -> End:
    """How a failed pod ended: what the unit itself said, else what Kubernetes says of it."""
    terminated = _terminated(pod)
    said, why = end_of(terminated.get("message") or ""), _disruption(pod)
    if terminated.get("reason") == "OOMKilled":
        stage = (pod["metadata"].get("labels") or {}).get(STAGE, "")
        memory = runtime.cluster.request(stage).memory if runtime.cluster else "?"
        return End(CHANGE, "OutOfMemory", f"out of memory: the pod reached its limit of {memory}: raise memory in the runtime profile's requests")
    if said and said["code"]:
        return End(AGAIN, said["error"], f"{said['message']} ({why})") if why else End(**said)
    if why:
        return End(AGAIN, "Disrupted", why)
    return _unsaid(terminated)


def _unsaid(terminated: Object) -> End:
    """The container ended without a word of the unit."""
    code, message = terminated.get("exitCode"), (terminated.get("message") or "no message").strip()[-300:]
    if terminated.get("reason") in ("StartError", "ContainerCannotRun"):
        return End(CHANGE, "StartError", f"the container could not start: {message}: check the image in the runtime profile")
    if code in (137, 143):
        return End(AGAIN, "Killed", f"killed by a signal (exit code {code}): its node was short of memory, or somebody stopped it")
    return End(code if code in (AGAIN, CHANGE) else BUG, "Failed", f"ended with exit code {code}: {message}")


def _disruption(pod: Object) -> str:
    """Why the cluster took the pod away; empty when it did not."""
    status = pod.get("status") or {}
    if status.get("reason") == "Evicted":
        return f"evicted: {status.get('message') or 'its node ran short of resources'}"
    if status.get("reason") in ("NodeLost", "NodeShutdown", "Shutdown", "Terminated"):
        return f"its node was lost or shut down: {status.get('message') or status['reason']}"
    for found in status.get("conditions") or []:
        if found["type"] == "DisruptionTarget" and found["status"] == "True":
            return DISRUPTIONS.get(found["reason"], summary(found))
    return ""


def stuck(pod: Object, waited: float, runtime: Runtime) -> End | None:
    """Why a pod that has not started never will, or has waited for too long: `waited` seconds."""
    cluster = runtime.cluster
    assert cluster is not None
    status = pod.get("status") or {}
    for container in status.get("containerStatuses") or []:
        waiting = (container.get("state") or {}).get("waiting") or {}
        reason, message = waiting.get("reason", ""), waiting.get("message", "")
        if reason in IMAGE and (reason in NEVER or waited > cluster.image_seconds):
            remedy = "check image and pull_secrets in the runtime profile"
            return End(CHANGE, reason, f"the image {cluster.image} can not be pulled ({message}): {remedy}")
        if reason in NEVER and waited > GRACE_SECONDS:
            return End(CHANGE, reason, f"the container can not be made ({message}): check secrets, secret_env and volumes in the runtime profile")
    if (why := unscheduled(pod)) and waited > cluster.pending_seconds:
        remedy = "wait for room, or change requests, selectors or tolerations in the runtime profile"
        return End(AGAIN, "Unschedulable", f"no node took its pod within {cluster.pending_seconds:.0f} s: {why}: {remedy}")
    return None


GRACE_SECONDS = 10.0
"""A secret that is made at the same time as the Job may come a little later."""


def unscheduled(pod: Object) -> str | None:
    """The scheduler's words while no node takes the pod."""
    conditions = (pod.get("status") or {}).get("conditions") or []
    found = next((c for c in conditions if c["type"] == "PodScheduled" and c["status"] == "False"), None)
    return summary(found) if found else None


def started(pod: Object) -> bool:
    """Whether the container runs, or has run: there is a log."""
    return any({"running", "terminated"} & set(s.get("state") or {}) for s in (pod.get("status") or {}).get("containerStatuses") or [])


def _terminated(pod: Object) -> Object:
    for container in (pod.get("status") or {}).get("containerStatuses") or []:
        if found := (container.get("state") or {}).get("terminated"):
            return found
    return {}
