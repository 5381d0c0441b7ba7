"""Pod Security Standards, profile `restricted`, as an API server with its admission would judge (https://kubernetes.io/docs/concepts/security/pod-security-standards)."""

from collections.abc import Iterator
from typing import Any

VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


def violations(pod: dict[str, Any]) -> list[str]:
    """What in a pod's spec the profile forbids; empty when it may run."""
    return [*_of_pod(pod), *(f"{c['name']}: {what}" for kind in CONTAINERS for c in pod.get(kind) or [] for what in _of_container(c, pod))]


CONTAINERS = ("initContainers", "containers", "ephemeralContainers")


def _of_pod(pod: dict[str, Any]) -> Iterator[str]:
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(field):
            yield field
    for volume in pod.get("volumes") or []:
        if not (set(volume) - {"name"}) <= VOLUMES:
            yield f"volume {volume['name']}: {', '.join(sorted(set(volume) - {'name'} - VOLUMES))}"
    if (pod.get("securityContext") or {}).get("sysctls"):
        yield "sysctls"


def _of_container(container: dict[str, Any], pod: dict[str, Any]) -> Iterator[str]:
    own, shared = container.get("securityContext") or {}, pod.get("securityContext") or {}
    both = {**shared, **own}
    if own.get("privileged"):
        yield "privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation is not false"
    capabilities = own.get("capabilities") or {}
    if "ALL" not in capabilities.get("drop", []) or not set(capabilities.get("add") or []) <= {"NET_BIND_SERVICE"}:
        yield "capabilities are not dropped"
    if both.get("runAsNonRoot") is not True:
        yield "runAsNonRoot is not true"
    if both.get("runAsUser") == 0:
        yield "runAsUser is 0"
    if (both.get("seccompProfile") or {}).get("type") not in ("RuntimeDefault", "Localhost"):
        yield "seccompProfile is not RuntimeDefault"
    if own.get("procMount", "Default") != "Default":
        yield "procMount"
    if any(p.get("hostPort") for p in container.get("ports") or []):
        yield "hostPort"
