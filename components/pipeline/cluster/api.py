"""The cluster's API, by the official client: what is worth trying again is tried again, what the user must change is said in one sentence."""

import json
import logging
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from components.errors import SetupError, StockpotError, TransientError
from components.runtime import Cluster

logger = logging.getLogger(__name__)

Object = dict[str, Any]
"""A Kubernetes object as JSON."""

MANAGED = {"app.kubernetes.io/managed-by": "stockpot"}
PATIENCE_SECONDS = 120.0
"""How long a request is tried again while the API server is away or overloaded."""
CONNECT_SECONDS = 5.0
WATCH_SECONDS = 240
"""A watch is opened anew after this time, from where it ended."""
QUIET_SECONDS = 300.0
"""Longest time without a byte on a stream, after which it is opened anew."""


class Gone(Exception):  # noqa: N818  Kubernetes' own word
    """The history that a watch asks for is forgotten (410): list anew."""


class Api:
    """Jobs and pods of one namespace. Raises SetupError when there is no way to the cluster."""

    def __init__(self, cluster: Cluster, patience: float = PATIENCE_SECONDS) -> None:
        from kubernetes import client

        self.cluster, self.namespace, self.patience = cluster, cluster.namespace, patience
        self.client: Any = _connect(cluster.context)
        self.batch: Any = client.BatchV1Api(self.client)
        self.core: Any = client.CoreV1Api(self.client)
        self.access: Any = client.AuthorizationV1Api(self.client)
        self.selector = ",".join(f"{k}={v}" for k, v in MANAGED.items())

    # -- jobs ----------------------------------------------------------------------------------------------------------------

    def create_job(self, manifest: Object) -> Object | None:
        """The new Job; None when the name is taken: by somebody, or by our own first try whose answer was lost."""
        return self._call("create the Job", lambda: self.batch.create_namespaced_job(self.namespace, manifest, **PLAIN), taken=409)

    def try_job(self, manifest: Object) -> None:
        """Has the server check a Job as if it were created: rights, namespace, fields, admission. Raises SetupError."""
        self._call("create Jobs", lambda: self.batch.create_namespaced_job(self.namespace, manifest, dry_run="All", **PLAIN), taken=409)

    def get_job(self, name: str) -> Object | None:
        """None when there is no such Job."""
        return self._call("read the Job", lambda: self.batch.read_namespaced_job(name, self.namespace, **PLAIN), taken=404)

    def mark_job(self, name: str, labels: dict[str, str], annotations: dict[str, str]) -> Object | None:
        """The Job with new labels and annotations; None when it is gone."""
        body = {"metadata": {"labels": labels, "annotations": annotations}}
        return self._call("mark the Job", lambda: self.batch.patch_namespaced_job(name, self.namespace, body, **PLAIN), taken=404)

    def delete_job(self, job: Object) -> bool:
        """Deletes a Job that is still what was read, with its pods, which have their grace time: it is gone when the last of them is.

        False when it has changed meanwhile (adopted, ended), or is gone: nothing is deleted then.
        """
        from kubernetes.client import V1DeleteOptions, V1Preconditions

        meta = job["metadata"]
        same = V1Preconditions(uid=meta["uid"], resource_version=meta["resourceVersion"])
        body = V1DeleteOptions(propagation_policy="Foreground", preconditions=same)

        def delete() -> Any:
            return self.batch.delete_namespaced_job(meta["name"], self.namespace, body=body, **PLAIN)

        return self._call("delete the Job", delete, taken=(404, 409)) is not None

    def list_jobs(self) -> tuple[str, list[Object]]:
        """(resourceVersion, all our Jobs)."""
        found = self._call("list the Jobs", lambda: self.batch.list_namespaced_job(self.namespace, label_selector=self.selector, **PLAIN))
        assert found is not None
        return found["metadata"]["resourceVersion"], found["items"]

    def watch_jobs(self, version: str, opened: Callable[[Callable[[], None]], None]) -> Iterator[tuple[str, Object]]:
        """(ADDED | MODIFIED | DELETED | BOOKMARK, Job) after `version`, until the server ends the stream. Raises Gone; TransientError for all that passes.

        `opened` is given a function that ends the stream from another thread.
        """
        from kubernetes.client import ApiException
        from kubernetes.watch import Watch
        from urllib3.exceptions import HTTPError

        stream: Any = Watch(return_type="object")
        opened(stream.stop)
        try:
            events = stream.stream(
                self.batch.list_namespaced_job,
                self.namespace,
                label_selector=self.selector,
                resource_version=version,
                allow_watch_bookmarks=True,
                timeout_seconds=WATCH_SECONDS,
                _request_timeout=(CONNECT_SECONDS, QUIET_SECONDS),
            )
            for event in events:
                yield event["type"], event["raw_object"]
        except ApiException as error:
            if error.status == 410:
                raise Gone from error
            raise self._why("watch the Jobs", error) from error
        except (HTTPError, OSError, ValueError) as error:  # cut in the middle: half a line, no end
            raise TransientError(f"watch of namespace {self.namespace}: {error}") from error

    # -- pods ----------------------------------------------------------------------------------------------------------------

    def list_pods(self) -> list[Object]:
        """All pods of our Jobs."""
        found = self._call("list the pods", lambda: self.core.list_namespaced_pod(self.namespace, label_selector=self.selector, **PLAIN))
        assert found is not None
        return found["items"]

    def follow_log(self, pod: str, since: int | None) -> Iterator[bytes]:
        """The pod's log with timestamps, in pieces, while it grows; `since`: of the last seconds alone. Raises TransientError when it breaks off."""
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        options: dict[str, Any] = {} if since is None else {"since_seconds": since}
        try:
            response = self.core.read_namespaced_pod_log(
                pod, self.namespace, follow=True, timestamps=True, _preload_content=False, _request_timeout=(CONNECT_SECONDS, QUIET_SECONDS), **options
            )
            if response.status != 200:
                raise ApiException(status=response.status, reason=response.reason)
            yield from response.stream(None, decode_content=False)
        except ApiException as error:
            raise self._why(f"read the log of {pod}", error) from error
        except (HTTPError, OSError) as error:
            raise TransientError(f"log of {pod}: {error}") from error

    def list_nodes(self) -> list[Object] | None:
        """All nodes; None without the right to see them."""
        if not self.may("list", "", "nodes", everywhere=True):
            return None
        return (self._call("list the nodes", lambda: self.core.list_node(**PLAIN)) or {})["items"]

    def has_secret(self, name: str) -> bool | None:
        """Whether a secret is there; None without the right to look."""
        if not self.may("get", "", "secrets"):
            return None
        return self._call("read a secret", lambda: self.core.read_namespaced_secret(name, self.namespace, **PLAIN), taken=404) is not None

    @property
    def address(self) -> str:
        """Of the API server."""
        return str(self.client.configuration.host)

    # -- rights --------------------------------------------------------------------------------------------------------------

    def may(self, verb: str, group: str, resource: str, part: str = "", *, everywhere: bool = False) -> bool:
        """Whether our account may do this in the namespace, or in the whole cluster."""
        attributes = {"namespace": "" if everywhere else self.namespace, "verb": verb, "group": group, "resource": resource, "subresource": part}
        review = {"spec": {"resourceAttributes": attributes}}
        found = self._call("ask for our rights", lambda: self.access.create_self_subject_access_review(review, **PLAIN))
        assert found is not None
        return bool(found["status"]["allowed"])

    # ------------------------------------------------------------------------------------------------------------------------

    def _call(self, what: str, request: Callable[[], Any], taken: int | tuple[int, ...] = ()) -> Object | None:
        """The answer as JSON; None for a status in `taken`. What passes is tried again, with back-off and jitter, for `patience` seconds."""
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        deadline, pause = time.monotonic() + self.patience, 0.2
        while True:
            try:
                return json.loads(request().data)
            except ApiException as error:
                if error.status in (taken if isinstance(taken, tuple) else (taken,)):
                    return None
                why: StockpotError = self._why(what, error)
            except (HTTPError, OSError) as error:
                why = TransientError(f"{self._where()}: the API server does not answer ({error}): check the kubeconfig and the network")
            if not isinstance(why, TransientError) or time.monotonic() > deadline:
                raise why
            time.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(2 * pause, 5.0)

    def _where(self) -> str:
        return f"cluster {self.address}, namespace {self.namespace}"

    def _why(self, what: str, error: Any) -> StockpotError:
        said = _message(error)
        if error.status == 401:
            return SetupError(f"{self._where()}: not allowed in (401): check the credentials in the kubeconfig")
        if error.status == 403:
            remedy = "give the account the Role of infra/kubernetes/base, or another namespace in the runtime profile"
            if "exceeded quota" in said:
                return TransientError(f"{self._where()}: the namespace's quota is used up: {said}")
            return SetupError(f"{self._where()}: no right to {what}: {said}: {remedy}")
        if error.status == 404 and "namespaces" in said:
            return SetupError(f"{self._where()}: there is no such namespace: create it, or name another in the runtime profile")
        if error.status in (0, 408, 409, 410, 425, 429) or error.status >= 500:
            return TransientError(f"{self._where()}: could not {what}: {error.status} {said}")
        return SetupError(f"{self._where()}: could not {what}: {error.status} {said}: check the runtime profile")


PLAIN: dict[str, Any] = {"_request_timeout": (CONNECT_SECONDS, 30.0), "_preload_content": False}
"""Of every request; its answer is read as JSON by us: the client's own objects for a list of pods cost a hundred times as much."""


def _message(error: Any) -> str:
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return " ".join(str(error.reason).split())


def _connect(context: str | None) -> Any:
    """The kubeconfig if there is one, else the account of the pod that this runs in."""
    import os

    from kubernetes import client, config

    configuration = client.Configuration()
    file = os.environ.get("KUBECONFIG", str(Path.home() / ".kube" / "config"))
    try:
        if context is None and "KUBECONFIG" not in os.environ and "KUBERNETES_SERVICE_HOST" in os.environ:
            config.load_incluster_config(client_configuration=configuration)
        else:
            config.load_kube_config(config_file=file, context=context, client_configuration=configuration)
    except config.ConfigException as error:
        words = " ".join(str(error).split())
        raise SetupError(f"{file}: no way to a cluster ({words}): set KUBECONFIG, or context in the runtime profile") from error
    configuration.retries = 0  # tried again here, where the reason is known
    configuration.connection_pool_maxsize = 64
    return client.ApiClient(configuration)
