"""The HTTP side, and `Cluster`: the whole, with what can go wrong in it on demand."""

import base64
import contextlib
import http.server
import io
import json
import re
import socket
import socketserver
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kubernetes_validate

from tests.fakes.apiserver import access, jobs
from tests.fakes.apiserver.jobs import Jobs
from tests.fakes.apiserver.kubelet import Image, Kubelet
from tests.fakes.apiserver.store import BY_KIND, RESOURCES, ApiError, Change, Key, Object, Resource, Store, condition
from tests.fakes.apiserver.tls import make_certificate

SCHEMAS = "1.34"
TICK_SECONDS = 0.05
LOST = -1
VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]


@dataclass
class Fault:
    """Requests that match are answered with `status` (0: the connection is dropped; LOST: after the work is done), `count` times, until a time (monotonic)."""

    status: int
    count: int
    until: float
    path: str
    method: str

    def takes(self, method: str, path: str) -> bool:
        if self.count <= 0 or time.monotonic() > self.until or self.method not in ("*", method) or not re.search(self.path, path):
            return False
        self.count -= 1
        return True


class Cluster:
    """A running cluster with one node. Use as a context; `images` is what can be pulled."""

    def __init__(
        self, folder: Path, images: Mapping[str, Image] | None = None, *, namespaces: tuple[str, ...] = ("default",), retry_seconds: float = 10
    ) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.images: dict[str, Image] = dict(images or {})
        self.store = Store()
        self.jobs, self.kubelet = Jobs(self.store, retry_seconds), Kubelet(self.store, self.images, folder / "pods")
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str]] = []
        """(method or WATCH, path with query) of every request."""
        self.watches: set[socket.socket] = set()
        self.stopping = threading.Event()
        self.broken: list[BaseException] = []
        self._add("Namespace", {"metadata": {"name": "kube-system"}, "status": {"phase": "Active"}})
        for name in namespaces:
            self._add("Namespace", {"metadata": {"name": name}, "status": {"phase": "Active"}})
        self.add_node("node-1")

        class Handler(_Handler):
            cluster = self

        class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
            daemon_threads, allow_reuse_address, request_queue_size = True, True, 128

        self.server = Server(("127.0.0.1", 0), Handler)
        self.certificate, key = make_certificate(folder)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, key)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"https://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self) -> "Cluster":
        for target in (self.server.serve_forever, self._control):
            threading.Thread(target=target, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        with self.store.changed:
            self.store.changed.notify_all()
        self.server.shutdown()
        self.server.server_close()
        self.kubelet.stop_all()
        if self.broken:
            raise self.broken[0]

    def _control(self) -> None:
        while not self.stopping.is_set():
            version = self.store.version
            try:
                self.store.collect()
                self.jobs.reconcile()
                self.kubelet.reconcile()
            except BaseException as error:
                self.broken.append(error)
                raise
            with self.store.changed:
                if self.store.version == version:
                    self.store.changed.wait(TICK_SECONDS)

    # -- for tests -----------------------------------------------------------------------------------------------------------

    def _add(self, kind: str, obj: Object, namespace: str = "") -> Object:
        return self.store.create(BY_KIND[kind], namespace, obj)

    def add_node(self, name: str, labels: Mapping[str, str] | None = None, taints: list[Object] | None = None, **allocatable: str) -> None:
        """A node; `nvidia.com/gpu` as `gpus`."""
        room = {"cpu": "64", "memory": "256Gi", **allocatable}
        if gpus := room.pop("gpus", None):
            room["nvidia.com/gpu"] = gpus
        meta = {"name": name, "labels": {"kubernetes.io/hostname": name, **(labels or {})}}
        self._add("Node", {"metadata": meta, "spec": {"taints": taints or []}, "status": {"allocatable": room, "capacity": room}})

    def kubeconfig(self, token: str = access.ADMIN, namespace: str = "default") -> Path:
        """For `admin`, or for a service account as NAMESPACE:NAME."""
        path = self.folder / f"kubeconfig-{token.replace(':', '-')}"
        authority = base64.b64encode(self.certificate.read_bytes()).decode()
        context = {"cluster": "fake", "user": "user", "namespace": namespace}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "fake",
            "clusters": [{"name": "fake", "cluster": {"server": self.url, "certificate-authority-data": authority}}],
            "contexts": [{"name": "fake", "context": context}],
            "users": [{"name": "user", "user": {"token": token}}],
        }
        path.write_text(json.dumps(content))
        return path

    def fail(self, status: int, *, count: int = 1_000_000, seconds: float = 3600, path: str = "", method: str = "*") -> None:
        """The next `count` requests that match, for `seconds`, are answered with this status; 0 drops the connection."""
        self.faults.append(Fault(status, count, time.monotonic() + seconds, path, method))

    def cut_watches(self) -> None:
        """Drops every open watch in the middle."""
        for connection in list(self.watches):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def pods(self, namespace: str = "default") -> list[Object]:
        return self.store.find("pods", namespace)

    def jobs_in(self, namespace: str = "default") -> list[Object]:
        return self.store.find("jobs.batch", namespace)

    def evict(self, pod: Object) -> None:
        """The kubelet frees its node: SIGTERM, grace, phase Failed with reason Evicted."""

        def mark(obj: Object) -> None:
            obj["status"] |= {"reason": "Evicted", "message": "The node was low on resource: memory."}
            condition(obj, "DisruptionTarget", "True", "TerminationByKubelet", "The node was low on resource: memory.")

        self.store.change(_key(pod), mark)
        process = self.kubelet.processes[pod["metadata"]["uid"]]
        grace = pod["spec"].get("terminationGracePeriodSeconds", 30)

        def stop() -> None:
            while process.popen.poll() is None:
                self.kubelet._stop(process, grace)
                time.sleep(TICK_SECONDS)

        threading.Thread(target=stop, daemon=True).start()

    def kill(self, pod: Object, *, oom: bool = False) -> None:
        """SIGKILL to the container; `oom`: because it had reached its memory limit."""
        process = self.kubelet.processes[pod["metadata"]["uid"]]
        process.oom = oom
        self.kubelet._kill(process)

    def lose_node(self, pod: Object) -> None:
        """The pod's node does not answer any more: its processes are gone, and the pod is deleted without a word from its kubelet."""

        def mark(obj: Object) -> None:
            obj["status"]["phase"] = "Failed"
            condition(obj, "DisruptionTarget", "True", "DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint")

        self.store.change(_key(pod), mark)
        self.kubelet._kill(self.kubelet.processes[pod["metadata"]["uid"]])
        self.store.delete(_key(pod), grace=0)


def _key(pod: Object) -> Key:
    return ("pods", pod["metadata"]["namespace"], pod["metadata"]["name"])


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    cluster: Cluster

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""

    def do_GET(self) -> None:
        self._answer(self.command)

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815

    # -- answers -------------------------------------------------------------------------------------------------------------

    def _send(self, code: int, obj: Any, kind: str = "application/json", **headers: str) -> None:
        data = obj if isinstance(obj, bytes) else json.dumps(obj).encode()
        self.send_response(code)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def _refuse(self, error: ApiError) -> None:
        body = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": error.message, "reason": error.reason, "code": error.code}
        self._send(error.code, body, **({"Retry_After": "1"} if error.code == 429 else {}))

    def _chunks(self, kind: str) -> Callable[[bytes], None]:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

        def send(data: bytes) -> None:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self.wfile.flush()

        return send

    def _answer(self, method: str) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        raw = self.rfile.read(length) if length else b""
        parts = urlsplit(self.path)
        query = {k: v[0] for k, v in parse_qs(parts.query).items()}
        watching = query.get("watch") in ("true", "True", "1")
        self.cluster.requests.append(("WATCH" if watching else method, self.path))
        try:
            if "protobuf" in self.headers.get("Content-Type", ""):
                raise ApiError(415, "UnsupportedMediaType", "the body of the request was in an unknown format - accepted media types include: application/json")
            for fault in self.cluster.faults:
                if fault.takes("WATCH" if watching else method, parts.path):
                    if fault.status == LOST:
                        self.wfile = io.BytesIO()
                        self._route(method, parts.path.strip("/").split("/"), query, raw, watching)
                    if fault.status in (0, LOST):
                        self.close_connection = True
                        self.connection.shutdown(socket.SHUT_RDWR)
                        return
                    words = {429: "TooManyRequests", 500: "InternalError", 503: "ServiceUnavailable"}.get(fault.status, "Fault")
                    raise ApiError(fault.status, words, f"{words} on demand")
            self._route(method, parts.path.strip("/").split("/"), query, raw, watching)
        except ApiError as error:
            self._refuse(error)
        except (BrokenPipeError, ConnectionResetError, OSError):
            self.close_connection = True

    def _route(self, method: str, path: list[str], query: dict[str, str], raw: bytes, watching: bool) -> None:
        if path[0] in ("healthz", "livez", "readyz"):
            self._send(200, b"ok", "text/plain")
            return
        if discovery := _discovery(path):
            self._send(200, discovery)
            return
        group, version, rest = ("", path[1], path[2:]) if path[0] == "api" else (path[1], path[2] if len(path) > 2 else "", path[3:])
        if path[0] not in ("api", "apis") or not rest:
            raise ApiError(404, "NotFound", "the server could not find the requested resource")
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        plural, name, part = rest[0], rest[1] if len(rest) > 1 else "", "/".join(rest[2:])
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if not token:
            raise ApiError(401, "Unauthorized", "Unauthorized")
        if group == "authorization.k8s.io" and plural == "selfsubjectaccessreviews":
            self._review(token, json.loads(raw))
            return
        resource = next((r for r in RESOURCES if (r.group, r.version, r.plural) == (group, version, plural)), None)
        if resource is None:
            raise ApiError(404, "NotFound", "the server could not find the requested resource")
        verb = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete" if name else "deletecollection"}.get(method, "get" if name else "list")
        access.check(self.cluster.store, token, "watch" if watching else verb, group, f"{plural}/{part}" if part else plural, namespace)
        key = (resource.name, namespace, name)
        if watching and query.get("sendInitialEvents") == "true":  # a client lists first, then, as with servers of before 1.32
            raise ApiError(
                422, "Invalid", "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled"
            )
        if watching:
            self._watch(resource, namespace, query)
        elif part == "log":
            self._log(key, query)
        elif part == "eviction" and method == "POST":
            self.cluster.store.change(key, lambda o: condition(o, "DisruptionTarget", "True", "EvictionByEvictionAPI", "Eviction API: evicting"))
            self.cluster.store.delete(key)
            self._send(201, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"})
        elif part not in ("", "status"):
            raise ApiError(404, "NotFound", "the server could not find the requested resource")
        elif method == "POST":
            self._create(resource, namespace, json.loads(raw), query)
        elif method == "GET" and name:
            self._send(200, self.cluster.store.get(key))
        elif method == "GET":
            self._list(resource, namespace, query)
        elif method == "DELETE":
            self._delete(resource, key, query, json.loads(raw) if raw else {})
        else:
            self._change(method, resource, key, json.loads(raw), part)

    # -- verbs ---------------------------------------------------------------------------------------------------------------

    def _review(self, token: str, review: Object) -> None:
        asked = review["spec"]["resourceAttributes"]
        resource = f"{asked['resource']}/{asked['subresource']}" if asked.get("subresource") else asked["resource"]
        fine = access.allowed(self.cluster.store, token, asked["verb"], asked.get("group", ""), resource, asked.get("namespace", ""))
        self._send(201, {**review, "kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "status": {"allowed": fine}})

    def _create(self, resource: Resource, namespace: str, obj: Object, query: dict[str, str]) -> None:
        obj = {"apiVersion": resource.api_version, "kind": resource.kind, **obj}
        dry = query.get("dryRun") == "All"
        if query.get("fieldValidation") != "Strict":
            _drop_unknown(resource, obj)
        _check(resource, obj)
        store = self.cluster.store
        with store.changed:
            if resource.kind == "Job":
                jobs.defaults(obj)
            if resource.kind == "Pod":
                obj["status"] = {"phase": "Pending"}
            made = store.create(resource, namespace, obj, dry=dry)
            if dry:
                self._send(201, made)
                return
            key = (resource.name, namespace, made["metadata"]["name"])
            if resource.kind == "Job":
                jobs.after_create(store, key)
            self._send(201, store.get(key))

    def _list(self, resource: Resource, namespace: str, query: dict[str, str]) -> None:
        store = self.cluster.store
        with store.changed:
            items = [o for o in store.find(resource.name, namespace or None) if _selected(o, query)]
            version = str(store.version)
        self._send(200, {"kind": f"{resource.kind}List", "apiVersion": resource.api_version, "metadata": {"resourceVersion": version}, "items": items})

    def _delete(self, resource: Resource, key: Key, query: dict[str, str], options: Object) -> None:
        default = "Orphan" if resource.kind == "Job" else "Background"  # as batch/v1 does, for the sake of old clients
        policy = options.get("propagationPolicy") or query.get("propagationPolicy") or default
        grace = options.get("gracePeriodSeconds", query.get("gracePeriodSeconds"))
        same = options.get("preconditions") or {}
        keys = [key]
        if not key[2]:
            found = self.cluster.store.find(resource.name, key[1] or None)
            keys = [(key[0], o["metadata"].get("namespace", ""), o["metadata"]["name"]) for o in found if _selected(o, query)]
        gone: Object = {}
        for one in keys:
            gone = self.cluster.store.delete(one, policy, None if grace is None else int(grace), same.get("uid"), same.get("resourceVersion"))
        self._send(200, gone if key[2] and gone["metadata"].get("finalizers") else {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"})

    def _change(self, method: str, resource: Resource, key: Key, given: Object, part: str) -> None:
        if method == "PATCH" and "json-patch" in self.headers.get("Content-Type", ""):
            raise ApiError(415, "UnsupportedMediaType", "this server knows merge patches alone")

        def edit(obj: Object) -> None:
            old = json.loads(json.dumps(obj))
            new = given if method == "PUT" else _merged(obj, given)
            meta = {**new.get("metadata", {})}
            for fixed in ("uid", "creationTimestamp", "namespace", "name", "generation", "deletionTimestamp", "deletionGracePeriodSeconds"):
                meta.pop(fixed, None)
                if fixed in old["metadata"]:
                    meta[fixed] = old["metadata"][fixed]
            new = {**new, "metadata": meta, "apiVersion": resource.api_version, "kind": resource.kind}
            if part == "status":
                new = {**old, "status": new.get("status", {})}
            elif resource.kind in ("Job", "Pod"):
                new["status"] = old.get("status", {})
                if resource.kind == "Job" and new["spec"].get("template") != old["spec"].get("template") and not old["spec"].get("suspend"):
                    raise ApiError(422, "Invalid", f'Job.batch "{key[2]}" is invalid: spec.template: Invalid value: field is immutable')
            _check(resource, new)
            obj.clear()
            obj.update(new)

        self._send(200, self.cluster.store.change(key, edit))

    def _watch(self, resource: Resource, namespace: str, query: dict[str, str]) -> None:
        store = self.cluster.store
        ends = time.monotonic() + float(query.get("timeoutSeconds") or 1800)
        asked = query.get("resourceVersion") or "0"
        with store.changed:
            if asked == "0":
                seen = store.version
                first = [("ADDED", o) for o in store.find(resource.name, namespace or None) if _selected(o, query)]
            else:
                seen, first = int(asked), []
        send = self._chunks("application/json")
        self.cluster.watches.add(self.connection)
        try:
            for kind, obj in first:
                send(_event(kind, obj))
            while time.monotonic() < ends and not self.cluster.stopping.is_set():
                with store.changed:
                    if store.version == seen:
                        store.changed.wait(0.5)
                    try:
                        changes = store.since(seen)
                    except ApiError as error:
                        status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": error.message, "reason": error.reason}
                        send(_event("ERROR", {**status, "code": error.code}))
                        break
                    seen = store.version
                for change in changes:
                    if change.key[0] == resource.name and namespace in ("", change.key[1]) and (event := _seen_by(change, query)):
                        send(_event(*event))
            if query.get("allowWatchBookmarks") in ("true", "True"):
                mark = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": {"resourceVersion": str(seen), "creationTimestamp": None}}
                send(_event("BOOKMARK", mark))
            self.wfile.write(b"0\r\n\r\n")
        finally:
            self.cluster.watches.discard(self.connection)

    def _log(self, key: Key, query: dict[str, str]) -> None:
        pod = self.cluster.store.get(key)
        container = pod["spec"]["containers"][0]["name"]
        process = self.cluster.kubelet.processes.get(pod["metadata"]["uid"])
        if process is None:
            raise ApiError(400, "BadRequest", f'container "{container}" in pod "{key[2]}" is waiting to start: ContainerCreating')
        if query.get("previous") in ("true", "True"):
            raise ApiError(400, "BadRequest", f'previous terminated container "{container}" in pod "{key[2]}" not found')
        since = query.get("sinceTime", "")
        stamped = query.get("timestamps") in ("true", "True")

        def shown(raw: bytes) -> bytes:
            lines = [line.partition(b" ") for line in raw.splitlines(keepends=True)]
            return b"".join((stamp + b" " if stamped else b"") + text for stamp, _, text in lines if stamp.decode() >= since)

        if query.get("follow") not in ("true", "True"):
            text = shown(process.log.read_bytes())
            if tail := query.get("tailLines"):
                text = b"".join(text.splitlines(keepends=True)[-int(tail) :])
            self._send(200, text, "text/plain")
            return
        send = self._chunks("text/plain")
        self.cluster.watches.add(self.connection)
        try:
            with process.log.open("rb") as log:
                while not self.cluster.stopping.is_set():
                    over = process.over()
                    whole = log.read()
                    if text := shown(whole):
                        send(text)
                    elif over:
                        break
                    time.sleep(TICK_SECONDS)
            self.wfile.write(b"0\r\n\r\n")
        finally:
            self.cluster.watches.discard(self.connection)


def _discovery(path: list[str]) -> Object | None:
    groups: dict[str, set[str]] = {}
    for r in RESOURCES:
        groups.setdefault(r.group, set()).add(r.version)

    def group(name: str) -> Object:
        versions = [{"groupVersion": f"{name}/{v}", "version": v} for v in sorted(groups[name])]
        return {"name": name, "versions": versions, "preferredVersion": versions[0]}

    if path == ["version"]:
        return {"major": "1", "minor": "34", "gitVersion": "v1.34.0"}
    if path[:2] == ["openapi", "v3"]:
        return _openapi("/".join(path[2:]))
    if path == ["api"]:
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == ["apis"]:
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [group(g) for g in sorted(groups) if g]}
    if path[0] == "apis" and len(path) == 2 and path[1] in groups:
        return {"kind": "APIGroup", "apiVersion": "v1", **group(path[1])}
    name, version = ("", path[1]) if path[0] == "api" and len(path) == 2 else (path[1], path[2]) if path[0] == "apis" and len(path) == 3 else (None, None)
    if name is None or version not in groups.get(name, ()):
        return None
    found = [
        {"name": r.plural, "singularName": r.kind.lower(), "namespaced": r.namespaced, "kind": r.kind, "verbs": VERBS} for r in RESOURCES if r.group == name
    ]
    if not name:
        found.append({"name": "pods/log", "singularName": "", "namespaced": True, "kind": "Pod", "verbs": ["get"]})
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": f"{name}/{version}" if name else version, "resources": found}


def _openapi(path: str) -> Object:
    """As much as kubectl wants to know: that the server itself validates fields."""
    prefixes = {r: f"apis/{r.api_version}" if r.group else "api/v1" for r in RESOURCES}
    if not path:
        return {"paths": {p: {"serverRelativeURL": f"/openapi/v3/{p}"} for p in sorted(set(prefixes.values()))}}
    parameter = {"name": "fieldValidation", "in": "query", "schema": {"type": "string", "uniqueItems": True}}
    paths = {
        f"/{p}/{r.plural}/{{name}}": {
            "patch": {"parameters": [parameter], "x-kubernetes-group-version-kind": {"group": r.group, "version": r.version, "kind": r.kind}, "responses": {}}
        }
        for r, p in prefixes.items()
        if p == path
    }
    return {"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "v1.34.0"}, "paths": paths}


def _check(resource: Resource, obj: Object) -> None:
    """Strict field validation against the published schemas."""
    shown = {k: v for k, v in obj.items() if k != "status"} if resource.kind in ("Job", "Pod") else obj
    try:
        kubernetes_validate.validate(shown, SCHEMAS, strict=True)
    except kubernetes_validate.ValidationError as error:
        where = ".".join(map(str, error.path))
        raise ApiError(
            400, "BadRequest", f'{resource.kind} in version "{resource.version}" cannot be handled: strict decoding error: {where}: {error.message}'
        ) from error


def _drop_unknown(resource: Resource, obj: Object) -> None:
    """Unknown fields are refused for who asks so, as kubectl does; for all others, such as Prefect's worker, they are dropped."""
    while True:
        try:
            return kubernetes_validate.validate(obj, SCHEMAS, strict=True)
        except kubernetes_validate.ValidationError as error:
            if error.validator != "additionalProperties":
                return None
            node: Any = obj
            for part in error.path:
                node = node[part]
            for name in set(node) - set(error.schema["properties"]):
                del node[name]


def _merged(old: Any, new: Any) -> Any:
    if not isinstance(old, dict) or not isinstance(new, dict):
        return new
    merged = {**old, **{k: _merged(old.get(k), v) for k, v in new.items()}}
    return {k: v for k, v in merged.items() if v is not None}


def _event(kind: str, obj: Object) -> bytes:
    return json.dumps({"type": kind, "object": obj}).encode() + b"\n"


def _seen_by(change: Change, query: dict[str, str]) -> tuple[str, Object] | None:
    """What a watch with selectors is told: an object that falls out of the selection is deleted for it."""
    before = change.old is not None and _selected(change.old, query)
    after = change.kind != "DELETED" and change.new is not None and _selected(change.new, query)
    if change.new is None or not (before or after):
        return None
    return ("MODIFIED" if before else "ADDED", change.new) if after else ("DELETED", change.new)


def _selected(obj: Object, query: dict[str, str]) -> bool:
    labels = obj["metadata"].get("labels") or {}
    for term in filter(None, re.split(r",(?![^(]*\))", query.get("labelSelector", ""))):
        if found := re.fullmatch(r"\s*(\S+)\s+(in|notin)\s+\((.*)\)\s*", term):
            if (labels.get(found[1]) in [v.strip() for v in found[3].split(",")]) != (found[2] == "in"):
                return False
        elif found := re.fullmatch(r"([^!=]+)(==?|!=)(.*)", term):
            if (labels.get(found[1].strip()) == found[3].strip()) == (found[2] == "!="):
                return False
        elif (term.strip().lstrip("!") in labels) == term.strip().startswith("!"):
            return False
    for term in filter(None, query.get("fieldSelector", "").split(",")):
        path, _, value = term.partition("=")
        node: Any = obj
        for part in path.rstrip("!").split("."):
            node = (node or {}).get(part)
        if (str(node or "") == value.lstrip("=")) == path.endswith("!"):
            return False
    return True


def temporary_folder() -> Path:
    """Where `python -m tests.fakes.apiserver` keeps its pods."""
    return Path(tempfile.mkdtemp(prefix="apiserver-"))
