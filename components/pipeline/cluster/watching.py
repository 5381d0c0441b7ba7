"""One watch for all waiting units of a run: what each Job was last seen to be."""

import logging
import threading
import time
from dataclasses import dataclass

from components.errors import StockpotError, TransientError
from components.pipeline.cluster.api import Api, Gone, Object

logger = logging.getLogger(__name__)

PODS_SECONDS = 1.0
"""Pods are listed at most this often, for all units together."""


@dataclass
class Seen:
    """A Job that somebody waits for."""

    job: Object
    gone: bool = False


class Watching:
    """List, then watch from there; a dropped connection goes on from the last event, a forgotten history (410) lists anew."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.changed = threading.Condition()
        self.seen: dict[str, Seen] = {}
        self.error: StockpotError | None = None
        self.thread: threading.Thread | None = None
        self.closed = False
        self.stop_stream = lambda: None
        self.pods: list[Object] = []
        self.pods_at = -PODS_SECONDS
        self.pods_lock = threading.Lock()

    def expect(self, job: Object) -> Seen:
        """Begins to follow a Job that has just been read."""
        seen = Seen(job)
        with self.changed:
            self.seen[job["metadata"]["name"]] = seen
            if self.thread is None or not self.thread.is_alive():
                self.error = None
                self.thread = threading.Thread(target=self._run, name="stockpot-watch", daemon=True)
                self.thread.start()
        return seen

    def forget(self, seen: Seen) -> None:
        """Nobody waits for it any more."""
        with self.changed:
            name = seen.job["metadata"]["name"]
            if self.seen.get(name) is seen:
                del self.seen[name]

    def wait(self, seen: Seen, seconds: float) -> None:
        """Until something changes, or for `seconds`. Raises what ended the watch."""
        with self.changed:
            if not seen.gone:
                self.changed.wait(seconds)
            if self.error is not None:
                raise self.error

    def close(self) -> None:
        """Ends the watch."""
        self.closed = True
        self.stop_stream()

    def fresh_pods(self) -> list[Object]:
        """All our pods, as they were at most a second ago."""
        with self.pods_lock:
            if time.monotonic() - self.pods_at > PODS_SECONDS:
                self.pods, self.pods_at = self.api.list_pods(), time.monotonic()
            return self.pods

    # ------------------------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self.closed:
                version = self._list()
                while version is not None and not self.closed:
                    version = self._follow(version)
        except StockpotError as error:
            with self.changed:
                self.error = error
                self.changed.notify_all()

    def _list(self) -> str:
        with self.changed:
            expected = dict(self.seen)
        version, jobs = self.api.list_jobs()
        by_name = {j["metadata"]["name"]: j for j in jobs}
        with self.changed:
            for name, seen in expected.items():
                if name in by_name:
                    self._note(by_name[name])
                else:
                    seen.gone = True
            self.changed.notify_all()
        return version

    def _follow(self, version: str) -> str | None:
        """Where to go on; None: list anew."""

        def opened(stop: "threading.Event | object") -> None:
            self.stop_stream = stop  # type: ignore[assignment]

        try:
            for kind, job in self.api.watch_jobs(version, opened):
                version = job["metadata"]["resourceVersion"]
                if kind == "BOOKMARK":
                    continue
                with self.changed:
                    self._note(job, gone=kind == "DELETED")
                    self.changed.notify_all()
        except Gone:
            logger.info("the cluster has forgotten what happened since the last event: listing the Jobs anew")
            return None
        except TransientError as error:
            logger.info("the watch of the Jobs broke off and goes on: %s", error)
            time.sleep(0.2)
        return version

    def _note(self, job: Object, *, gone: bool = False) -> None:
        seen = self.seen.get(job["metadata"]["name"])
        if seen is None:
            return
        if job["metadata"]["uid"] != seen.job["metadata"]["uid"]:
            seen.gone = seen.gone or not gone  # another one has its name: ours was deleted. The end of an earlier one says nothing
            return
        seen.job, seen.gone = job, seen.gone or gone
