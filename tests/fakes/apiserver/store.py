"""Objects with one resourceVersion for all, the history of their changes, and what deletion means: finalizers, grace, owners."""

import copy
import datetime
import threading
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]
Key = tuple[str, str, str]
"""Plural with its group (`jobs.batch`, `pods`), namespace (empty for none), name."""


@dataclass(frozen=True)
class Resource:
    """A kind of object."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def name(self) -> str:
        """As in RBAC and in error messages."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version


RESOURCES = [
    Resource("", "v1", "pods", "Pod"),
    Resource("", "v1", "services", "Service"),
    Resource("", "v1", "events", "Event"),
    Resource("", "v1", "secrets", "Secret"),
    Resource("", "v1", "configmaps", "ConfigMap"),
    Resource("", "v1", "serviceaccounts", "ServiceAccount"),
    Resource("", "v1", "resourcequotas", "ResourceQuota"),
    Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim"),
    Resource("", "v1", "namespaces", "Namespace", namespaced=False),
    Resource("", "v1", "nodes", "Node", namespaced=False),
    Resource("batch", "v1", "jobs", "Job"),
    Resource("apps", "v1", "deployments", "Deployment"),
    Resource("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy"),
    Resource("coordination.k8s.io", "v1", "leases", "Lease"),
    Resource("events.k8s.io", "v1", "events", "Event"),
    Resource("rbac.authorization.k8s.io", "v1", "roles", "Role"),
    Resource("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding"),
    Resource("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", namespaced=False),
    Resource("rbac.authorization.k8s.io", "v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False),
    Resource("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", namespaced=False),
    Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False),
]
BY_KIND = {r.kind: r for r in RESOURCES}


class ApiError(Exception):
    """What the server answers instead."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code, self.reason, self.message = code, reason, message


@dataclass(frozen=True)
class Change:
    """One entry of the history."""

    version: int
    kind: str
    key: Key
    old: Object | None
    new: Object | None


def now() -> str:
    """Time as Kubernetes writes it."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Store:
    """All objects. `changed` is notified after each change."""

    def __init__(self, remembered: int = 1000) -> None:
        self.changed = threading.Condition(threading.RLock())
        self.objects: dict[Key, Object] = {}
        self.version = 1
        self.history: deque[Change] = deque(maxlen=remembered)
        self.forgotten = 1
        """Watches from before this version are too old."""

    # -- reading -----------------------------------------------------------------------------------------------------------

    def find(self, resource: str, namespace: str | None = None) -> list[Object]:
        """All objects of a resource, by name, to be read only: a change makes a new object."""
        with self.changed:
            return [self.objects[k] for k in sorted(k for k in self.objects if k[0] == resource and namespace in (None, k[1]))]

    def get(self, key: Key) -> Object:
        with self.changed:
            if key not in self.objects:
                raise ApiError(404, "NotFound", f'{key[0]} "{key[2]}" not found')
            return copy.deepcopy(self.objects[key])

    def since(self, version: int) -> list[Change]:
        """Changes after a version. Raises ApiError 410 when they are forgotten."""
        with self.changed:
            if version < self.forgotten:
                raise ApiError(410, "Expired", f"too old resource version: {version} ({self.forgotten})")
            return [c for c in self.history if c.version > version]

    def compact(self) -> None:
        """Forgets the history, as a server does after a while."""
        with self.changed:
            self.version += 1
            self.forgotten = self.version
            self.history.clear()
            self.changed.notify_all()

    # -- writing -----------------------------------------------------------------------------------------------------------

    def _commit(self, kind: str, key: Key, new: Object | None) -> None:
        self.version += 1
        old = self.objects.get(key)
        if new is None:
            gone = copy.deepcopy(old) or {}
            gone["metadata"]["resourceVersion"] = str(self.version)
            del self.objects[key]
            change = Change(self.version, kind, key, old, gone)
        else:
            new["metadata"]["resourceVersion"] = str(self.version)
            self.objects[key] = new
            change = Change(self.version, kind, key, old, copy.deepcopy(new))
        if len(self.history) == self.history.maxlen:
            self.forgotten = self.history[0].version
        self.history.append(change)
        self.changed.notify_all()

    def create(self, resource: Resource, namespace: str, given: Object, *, dry: bool = False) -> Object:
        """Raises ApiError 409 for a name that is taken, 404 for a namespace that is not there."""
        made = copy.deepcopy(given)
        meta = made.setdefault("metadata", {})
        with self.changed:
            if resource.namespaced and ("namespaces", "", namespace) not in self.objects:
                raise ApiError(404, "NotFound", f'namespaces "{namespace}" not found')
            if not meta.get("name"):
                meta["name"] = meta.get("generateName", "")[:58] + uuid.uuid4().hex[:5]
            key = (resource.name, namespace, meta["name"])
            if key in self.objects:
                raise ApiError(409, "AlreadyExists", f'{resource.name} "{meta["name"]}" already exists')
            meta |= {"uid": str(uuid.uuid4()), "creationTimestamp": now(), "generation": 1}
            if namespace:
                meta["namespace"] = namespace
            made |= {"apiVersion": resource.api_version, "kind": resource.kind}
            if dry:
                return made
            self._commit("ADDED", key, made)
            return self.get(key)

    def change(self, key: Key, edit: Callable[[Object], None]) -> Object:
        """Applies `edit` to the object; nothing to change is no change. Raises ApiError 404, or 409 when a resourceVersion in it is stale."""
        with self.changed:
            old = self.get(key)
            new = copy.deepcopy(old)
            edit(new)
            if new["metadata"].get("resourceVersion") not in (None, old["metadata"]["resourceVersion"]):
                message = f'Operation cannot be fulfilled on {key[0]} "{key[2]}": the object has been modified; please apply your changes to the latest version'
                raise ApiError(409, "Conflict", message)
            if new.get("spec") != old.get("spec"):
                new["metadata"]["generation"] = old["metadata"].get("generation", 1) + 1
            if new != old:
                self._commit("MODIFIED", key, new)
                self._finish(key)
            return self.get(key) if key in self.objects else new

    def delete(self, key: Key, policy: str = "Background", grace: int | None = None, uid: str | None = None, version: str | None = None) -> Object:
        """Marks or removes an object. `policy`: Background, Foreground or Orphan; `uid` and `version` are preconditions."""
        with self.changed:
            obj = self.get(key)
            meta = obj["metadata"]
            for what, asked, found in (("UID", uid, meta["uid"]), ("ResourceVersion", version, meta["resourceVersion"])):
                if asked and asked != found:
                    message = f"the {what} in the precondition ({asked}) does not match the {what} in record ({found})"
                    raise ApiError(409, "Conflict", f'Operation cannot be fulfilled on {key[0]} "{key[2]}": Precondition failed: {message}')
            if finalizer := {"Foreground": "foregroundDeletion", "Orphan": "orphan"}.get(policy):
                meta.setdefault("finalizers", []).append(finalizer)
                meta["finalizers"] = sorted(set(meta["finalizers"]))
            if key[0] == "pods":
                grace = obj["spec"].get("terminationGracePeriodSeconds", 30) if grace is None else grace
                on_node = obj["spec"].get("nodeName") and obj.get("status", {}).get("phase") in ("Pending", "Running")
                grace = grace if on_node else 0
                meta["deletionGracePeriodSeconds"] = min(grace, meta.get("deletionGracePeriodSeconds", grace))
            meta.setdefault("deletionTimestamp", now())
            self._commit("MODIFIED", key, obj)
            self._finish(key)
            return obj

    def _finish(self, key: Key) -> None:
        """Removes an object that is marked, and that nothing holds any more."""
        meta = self.objects[key]["metadata"]
        if meta.get("deletionTimestamp") and not meta.get("finalizers") and not meta.get("deletionGracePeriodSeconds"):
            self._commit("DELETED", key, None)

    # -- owners ------------------------------------------------------------------------------------------------------------

    def collect(self) -> None:
        """One round of the garbage collector: what has lost all its owners goes; orphans and foreground deletions are finished."""
        with self.changed:
            alive = {o["metadata"]["uid"] for o in self.objects.values()}
            for key, obj in list(self.objects.items()):
                owners = obj["metadata"].get("ownerReferences", [])
                if owners and not any(o["uid"] in alive for o in owners) and not obj["metadata"].get("deletionTimestamp"):
                    self.delete(key)
            for key, obj in list(self.objects.items()):
                finalizers, uid = obj["metadata"].get("finalizers", []), obj["metadata"]["uid"]
                if "orphan" in finalizers:
                    for dependent in self._dependents(uid):
                        self.change(dependent, lambda o, uid=uid: _disown(o, uid))
                    self.drop_finalizer(key, "orphan")
                if "foregroundDeletion" in finalizers:
                    blocking = [d for d in self._dependents(uid) if _blocks(self.objects[d], uid)]
                    for dependent in blocking:
                        if not self.objects[dependent]["metadata"].get("deletionTimestamp"):
                            self.delete(dependent)
                    if not blocking:
                        self.drop_finalizer(key, "foregroundDeletion")

    def drop_finalizer(self, key: Key, finalizer: str) -> None:
        """Also the last act of a deletion."""

        def drop(obj: Object) -> None:
            obj["metadata"]["finalizers"] = [f for f in obj["metadata"].get("finalizers", []) if f != finalizer]

        if key in self.objects:
            self.change(key, drop)

    def _dependents(self, uid: str) -> list[Key]:
        return [k for k, o in self.objects.items() if any(r["uid"] == uid for r in o["metadata"].get("ownerReferences", []))]


def _disown(obj: Object, uid: str) -> None:
    obj["metadata"]["ownerReferences"] = [r for r in obj["metadata"]["ownerReferences"] if r["uid"] != uid]


def _blocks(obj: Object, uid: str) -> bool:
    return any(r["uid"] == uid and r.get("blockOwnerDeletion") for r in obj["metadata"]["ownerReferences"])


def condition(obj: Object, kind: str, status: str = "True", reason: str = "", message: str = "") -> None:
    """Sets a condition in the object's status."""
    conditions = obj.setdefault("status", {}).setdefault("conditions", [])
    before = next((c for c in conditions if c["type"] == kind), None)
    if before and (before["status"], before.get("reason"), before.get("message")) == (status, reason, message):
        return
    entry = {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": now()}
    obj["status"]["conditions"] = [c for c in conditions if c["type"] != kind] + [entry]


def has_condition(obj: Object, kind: str) -> bool:
    """Whether a condition is True."""
    return any(c["type"] == kind and c["status"] == "True" for c in obj.get("status", {}).get("conditions", []))
