"""Units as Kubernetes Jobs."""

import logging
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from components.errors import SetupError, StockpotError, TransientError
from components.pipeline import bundle as bundles
from components.pipeline.bundle import Bundle
from components.pipeline.cluster.api import Api, Object
from components.pipeline.cluster.check import check, check_places
from components.pipeline.cluster.job import ALIVE, IDENTITY, RUN, condition, manifest, over, owned_by
from components.pipeline.cluster.logs import PodLog
from components.pipeline.cluster.reasons import end_of_job, started, stuck, unscheduled
from components.pipeline.cluster.watching import Seen, Watching
from components.pipeline.content import Content
from components.pipeline.launcher import STOP, End
from components.pipeline.tail import Report
from components.pipeline.workspace import log_path
from components.runtime import Runtime

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
CONFLICTS = 10
"""How often a Job that changes while it is deleted is looked at again."""
GONE_SECONDS = 120.0
"""Longest wait for a deleted Job to be gone, besides its pods' grace time."""


class Kubernetes:
    """Jobs of one flow run (`run`) in one namespace. The cluster is asked for nothing before `check` or `submit`."""

    def __init__(self, runtime: Runtime, content: Content, *, home: Path, store: str, run: str) -> None:
        assert runtime.cluster is not None
        self.runtime, self.cluster, self.content, self.home, self.store = runtime, runtime.cluster, content, home, store
        self.run = run or uuid.uuid4().hex
        self.environment = {"STOCKPOT_REMOTE": content.remote_url() or ""}
        self.lock, self.closed = threading.Lock(), threading.Event()
        self._watching: Watching | None = None
        self.attempts: dict[str, KubernetesAttempt] = {}
        self.submitted = False

    @property
    def watching(self) -> Watching:
        """The one watch. Raises SetupError when there is no way to the cluster."""
        with self.lock:
            if self._watching is None:
                self._watching = Watching(Api(self.cluster))
                threading.Thread(target=self._say_alive, name="stockpot-alive", daemon=True).start()
            return self._watching

    @property
    def api(self) -> Api:
        """The cluster."""
        return self.watching.api

    def check(self, stages: Sequence[str]) -> None:
        """Raises SetupError for what would keep these stages' pods from running, as far as this account may see it. Nothing is created."""
        check_places(self.cluster, self.environment["STOCKPOT_REMOTE"], self.store)
        check(self.api, self.runtime, stages, self.environment)

    def submit(self, bundle: Bundle) -> "KubernetesAttempt":
        """Creates the unit's Job, or adopts the one that is under way. One that has failed is deleted first, with its pods."""
        uri = bundles.put(self.store, bundle)
        wanted = manifest(bundle, uri, self.runtime, self.run, self.environment)
        name, deadline = wanted["metadata"]["name"], time.monotonic() + GONE_SECONDS + self.runtime.grace_seconds
        while True:
            wanted["metadata"]["annotations"][ALIVE] = _now()
            if job := self.api.create_job(wanted):
                return self._attempt(bundle, job)
            job = self.api.get_job(name)
            if job is None:
                continue
            if (job["metadata"].get("annotations") or {}).get(IDENTITY) != bundle.identity:
                raise SetupError(f"Job {name} in namespace {self.api.namespace} is of another unit: delete it")
            if job["metadata"].get("deletionTimestamp"):
                if time.monotonic() > deadline or STOP.is_set():
                    raise TransientError(f"{bundle.stage}: Job {name} is being deleted and does not end: look for its finalizers")
                time.sleep(POLL_SECONDS)
            elif condition(job, "Complete") and self.content.lookup(bundle.identity):
                return self._attempt(bundle, job, reused=True)
            elif over(job):
                self.api.delete_job(job)
            elif job := self.api.mark_job(name, {RUN: self.run}, {ALIVE: _now()}):
                logger.info("%s: going on with Job %s, which is under way", bundle.stage, name)
                return self._attempt(bundle, job)

    def _attempt(self, bundle: Bundle, job: Object, *, reused: bool = False) -> "KubernetesAttempt":
        attempt = KubernetesAttempt(self, bundle, job, reused=reused)
        if not reused:
            self.submitted = True
            self.attempts[job["metadata"]["uid"]] = attempt
        return attempt

    def close(self) -> None:
        """Deletes the Jobs of units that nobody has waited for to the end, and those of dead runs that nobody has adopted."""
        self.closed.set()
        if self._watching is None:
            return
        for attempt in list(self.attempts.values()):
            attempt.cancel()
        self._watching.close()
        try:
            if self.submitted and not STOP.is_set():
                self.sweep()
        except StockpotError as error:
            logger.warning("Jobs of dead runs are left in namespace %s: %s", self.api.namespace, error)

    def sweep(self) -> list[str]:
        """Deletes unfinished Jobs of other runs that have given no sign of life for `orphan_seconds`. Returns their names."""
        swept = []
        for job in self.api.list_jobs()[1]:
            meta = job["metadata"]
            last = (meta.get("annotations") or {}).get(ALIVE) or meta["creationTimestamp"]
            silent = (datetime.now(UTC) - datetime.fromisoformat(last)).total_seconds()
            others = meta["labels"].get(RUN) != self.run and not over(job) and not meta.get("deletionTimestamp")
            if others and silent > self.cluster.orphan_seconds and self.api.delete_job(job):
                logger.info("deleted Job %s, whose run is dead", meta["name"])
                swept.append(meta["name"])
        return swept

    def _say_alive(self) -> None:
        while not self.closed.wait(self.cluster.orphan_seconds / 10):
            for attempt in list(self.attempts.values()):
                try:
                    self.api.mark_job(attempt.job["metadata"]["name"], {}, {ALIVE: _now()})
                except StockpotError as error:
                    logger.info("the cluster has not heard that this run is alive: %s", error)


class KubernetesAttempt:
    """A Job that this run waits for."""

    def __init__(self, launcher: Kubernetes, bundle: Bundle, job: Object, *, reused: bool) -> None:
        self.launcher, self.bundle, self.job, self.reused = launcher, bundle, job, reused
        self.api, self.watching, self.runtime = launcher.api, launcher.watching, launcher.runtime
        self.told = ""

    def wait(self, on_report: Callable[[Report], None]) -> End:
        if self.reused:
            return End(0)
        seen = self.watching.expect(self.job)
        try:
            with PodLog(self.api, log_path(self.launcher.home, self.bundle), on_report) as log:
                return self._follow(seen, log)
        except TransientError:
            self._let_go()  # the cluster is away, the Job goes on: the next try adopts it
            raise
        finally:
            self.watching.forget(seen)
            self.cancel()

    def cancel(self) -> None:
        """Deletes the Job with its pods, unless it is over (its pod tells more than its log) or another run has adopted it."""
        if not self._let_go():
            return
        name, ours = self.job["metadata"]["name"], self.job["metadata"]["labels"].get(RUN)
        try:
            for _ in range(CONFLICTS):
                now = self.api.get_job(name)
                if now is None or over(now) or now["metadata"]["uid"] != self._uid or now["metadata"]["labels"].get(RUN) != ours or self.api.delete_job(now):
                    return
        except StockpotError as error:
            logger.warning("%s: Job %s could not be deleted: %s", self.bundle.stage, name, error)

    @property
    def _uid(self) -> str:
        return str(self.job["metadata"]["uid"])

    def _let_go(self) -> bool:
        return self.launcher.attempts.pop(self._uid, None) is not None

    def _follow(self, seen: Seen, log: PodLog) -> End:
        since = time.monotonic()
        while True:
            self.watching.wait(seen, POLL_SECONDS)
            self.job = seen.job
            log.pass_on()
            if STOP.is_set():
                return End(75, "Stopped", "stopped: this run was asked to stop")
            if seen.gone:
                return End(75, "JobGone", f"its Job {self.job['metadata']['name']} was deleted by somebody")
            if over(self.job):
                pod = self._pod(self.api.list_pods())
                log.finish(pod["metadata"]["name"] if pod and started(pod) else None)
                return end_of_job(self.job, pod, self.runtime)
            if not log.begun and (end := self._look(log, time.monotonic() - since)):
                return end

    def _pod(self, pods: list[Object]) -> Object | None:
        return next((p for p in pods if owned_by(p, self.job)), None)

    def _look(self, log: PodLog, waited: float) -> End | None:
        """While there is no log: begins it if the pod has started; an end if it never will."""
        pod, cluster = self._pod(self.watching.fresh_pods()), self.runtime.cluster
        assert cluster is not None
        if pod is None:
            if waited < cluster.pending_seconds:
                return None
            why = f"`kubectl describe job {self.job['metadata']['name']}` says why (quota, queue)"
            return End(75, "NoPod", f"no pod within {cluster.pending_seconds:.0f} s: {why}")
        if started(pod):
            log.begin(pod["metadata"]["name"])
            return None
        if (why := unscheduled(pod)) and why != self.told:
            self.told = why
            logger.info("%s: waiting for a node: %s", self.bundle.stage, why)
        return stuck(pod, waited, self.runtime)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
