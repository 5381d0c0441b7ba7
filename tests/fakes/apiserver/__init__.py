"""A Kubernetes API server, Job controller, scheduler and kubelet, small and honest.

The official client, kubectl and Prefect's worker speak to it as to a cluster: resourceVersion, watch with 410, conflict, ownerReferences and cascade,
finalizers, RBAC, field validation against the published schemas. Each pod is a local process group with only the pod's environment, in an
empty folder. Not in it: networks, DNS, quota, admission, several containers in a pod, files at mount paths other than the working directory.
"""

from tests.fakes.apiserver.server import Cluster, Image

__all__ = ["Cluster", "Image"]
