"""The Job controller: pods for Jobs, and what Jobs say of them."""

import copy
import time
from typing import Any

from tests.fakes.apiserver.store import BY_KIND, ApiError, Key, Object, Store, condition, has_condition, now

TRACKED = "batch.kubernetes.io/job-tracking"
INDEX = "batch.kubernetes.io/job-completion-index"


def defaults(job: Object) -> None:
    """What the server fills in. Raises ApiError 422 for what it refuses."""
    spec = job.setdefault("spec", {})
    template = spec.setdefault("template", {})
    name = job["metadata"].get("name", "")
    if template.get("spec", {}).get("restartPolicy") not in ("Never", "OnFailure"):
        message = 'spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"'
        raise ApiError(422, "Invalid", f'Job.batch "{name}" is invalid: {message}')
    if template["spec"]["restartPolicy"] == "OnFailure":
        raise ApiError(501, "NotImplemented", "this server has no containers that start again (restartPolicy: OnFailure)")
    if len(name) > 63:
        raise ApiError(422, "Invalid", f'Job.batch "{name}" is invalid: spec.template.labels: Invalid value: must be no more than 63 characters')
    for key, value in {"parallelism": 1, "completions": 1, "backoffLimit": 6, "completionMode": "NonIndexed", "suspend": False}.items():
        spec.setdefault(key, value)
    job.pop("status", None)


def after_create(store: Store, key: Key) -> None:
    """Labels that need the uid, on the template and in the selector."""

    def label(job: Object) -> None:
        uid = job["metadata"]["uid"]
        labels = {"batch.kubernetes.io/controller-uid": uid, "batch.kubernetes.io/job-name": key[2], "controller-uid": uid, "job-name": key[2]}
        meta = job["spec"]["template"].setdefault("metadata", {})
        meta["labels"] = {**(meta.get("labels") or {}), **labels}
        job["spec"]["selector"] = {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
        job["status"] = {}

    store.change(key, label)


class Jobs:
    """Reconciles all Jobs; call `reconcile` again and again."""

    def __init__(self, store: Store, retry_seconds: float) -> None:
        self.store, self.retry_seconds = store, retry_seconds
        self.started: dict[str, float] = {}
        self.failures: dict[str, list[float]] = {}

    def reconcile(self) -> None:
        for job in self.store.find("jobs.batch"):
            key = ("jobs.batch", job["metadata"]["namespace"], job["metadata"]["name"])
            try:
                self._reconcile(key, job)
            except ApiError as error:  # deleted or changed meanwhile: next time
                if error.code not in (404, 409):
                    raise
        alive = {j["metadata"]["uid"] for j in self.store.find("jobs.batch")}
        for pod in self.store.find("pods"):
            owners = {r["uid"] for r in pod["metadata"].get("ownerReferences", []) if r.get("controller")}
            if TRACKED in pod["metadata"].get("finalizers", []) and not owners & alive:
                self.store.drop_finalizer(("pods", pod["metadata"]["namespace"], pod["metadata"]["name"]), TRACKED)

    def _pods(self, job: Object) -> list[Object]:
        uid = job["metadata"]["uid"]
        return [p for p in self.store.find("pods", job["metadata"]["namespace"]) if any(r["uid"] == uid for r in p["metadata"].get("ownerReferences", []))]

    def _reconcile(self, key: Key, job: Object) -> None:
        spec, uid = job["spec"], job["metadata"]["uid"]
        status: Object = copy.deepcopy(job.get("status") or {})
        pods = self._pods(job)
        over = has_condition(job, "Complete") or has_condition(job, "Failed")
        for pod in pods:
            pod_key = ("pods", key[1], pod["metadata"]["name"])
            if TRACKED not in pod["metadata"].get("finalizers", []):
                continue
            phase = pod["status"]["phase"]
            if phase in ("Succeeded", "Failed") and not over:
                what = phase.lower()
                status[what] = status.get(what, 0) + 1
                if phase == "Failed":
                    self.failures.setdefault(uid, []).append(time.monotonic())
                elif index := pod["metadata"].get("annotations", {}).get(INDEX):
                    done = {*filter(None, status.get("completedIndexes", "").split(",")), index}
                    status["completedIndexes"] = ",".join(sorted(done, key=int))
            if phase in ("Succeeded", "Failed") or job["metadata"].get("deletionTimestamp"):
                self.store.drop_finalizer(pod_key, TRACKED)
        live = [p for p in pods if p["status"]["phase"] in ("Pending", "Running")]
        active = [p for p in live if not p["metadata"].get("deletionTimestamp")]
        if not over and not job["metadata"].get("deletionTimestamp"):
            self._drive(key, job, status, pods, live, active)
        status["active"] = len([p for p in self._pods(job) if p["status"]["phase"] in ("Pending", "Running") and not p["metadata"].get("deletionTimestamp")])
        status["terminating"] = len(live) - len(active)
        status["ready"] = len([p for p in active if has_condition(p, "Ready")])
        if not status["active"]:
            del status["active"]

        def write(obj: Object) -> None:
            obj["status"] = status

        if status != job.get("status"):
            self.store.change(key, write)
        if over and (ttl := spec.get("ttlSecondsAfterFinished")) is not None and time.monotonic() - self.started[f"{uid}-over"] >= ttl:
            self.store.delete(key)

    def _drive(self, key: Key, job: Object, status: Object, pods: list[Object], live: list[Object], active: list[Object]) -> None:
        spec, uid = job["spec"], job["metadata"]["uid"]
        told = {"status": status}
        if spec["suspend"]:
            for pod in active:
                self.store.delete(("pods", key[1], pod["metadata"]["name"]))
            status.pop("startTime", None)
            self.started.pop(uid, None)
            condition(told, "Suspended", "True", "JobSuspended", "Job suspended")
            return
        if "startTime" not in status:
            if any(c["type"] == "Suspended" for c in status.get("conditions", [])):
                condition(told, "Suspended", "False", "JobResumed", "Job resumed")
            status["startTime"] = now()
            self.started[uid] = time.monotonic()
        why = next(((c["reason"], c["message"]) for c in status.get("conditions", []) if c["type"] == "FailureTarget"), None)
        terminating = [p for p in live if p["metadata"].get("deletionTimestamp")]
        if not why and status.get("failed", 0) + len(terminating) > spec["backoffLimit"]:
            why = ("BackoffLimitExceeded", "Job has reached the specified backoff limit")
        if not why and (limit := spec.get("activeDeadlineSeconds")) and time.monotonic() - self.started[uid] > limit:
            why = ("DeadlineExceeded", "Job was active longer than specified deadline")
        if why:
            condition(told, "FailureTarget", "True", *why)
            for pod in active:
                self.store.delete(("pods", key[1], pod["metadata"]["name"]))
            if not live:
                condition(told, "Failed", "True", *why)
                self.started[f"{uid}-over"] = time.monotonic()
            return
        if status.get("succeeded", 0) >= spec["completions"]:
            condition(told, "SuccessCriteriaMet", "True", "CompletionsReached", "Reached expected number of succeeded pods")
            condition(told, "Complete", "True", "CompletionsReached", "Reached expected number of succeeded pods")
            status["completionTime"] = now()
            self.started[f"{uid}-over"] = time.monotonic()
            return
        failures = self.failures.get(uid, [])
        if failures and time.monotonic() - failures[-1] < self.retry_seconds * 2 ** (len(failures) - 1):
            return
        wanted = min(spec["parallelism"], spec["completions"] - status.get("succeeded", 0)) - len(active)
        indexes: list[int | None] = [None] * max(0, wanted)
        if spec["completionMode"] == "Indexed":
            taken = {int(p["metadata"]["annotations"][INDEX]) for p in active} | {int(i) for i in status.get("completedIndexes", "").split(",") if i}
            indexes = [i for i in range(spec["completions"]) if i not in taken][: max(0, wanted)]
        for index in indexes:
            self._create_pod(key, job, index)

    def _create_pod(self, key: Key, job: Object, index: int | None) -> None:
        template = copy.deepcopy(job["spec"]["template"])
        meta: dict[str, Any] = {k: v for k, v in template.get("metadata", {}).items() if k in ("labels", "annotations")}
        if index is not None:
            meta["annotations"] = {**(meta.get("annotations") or {}), INDEX: str(index)}
            meta["labels"][INDEX] = str(index)
            for container in template["spec"]["containers"]:
                container["env"] = [*(container.get("env") or []), {"name": "JOB_COMPLETION_INDEX", "value": str(index)}]
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": key[2], "uid": job["metadata"]["uid"], "controller": True, "blockOwnerDeletion": True}
        prefix = key[2] if index is None else f"{key[2]}-{index}"
        meta |= {"generateName": f"{prefix}-", "ownerReferences": [owner], "finalizers": [TRACKED]}
        self.store.create(BY_KIND["Pod"], key[1], {"metadata": meta, "spec": template["spec"], "status": {"phase": "Pending"}})
