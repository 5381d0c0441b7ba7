"""A pod's log, line by line, each line once, also when the stream breaks off."""

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from components.errors import StockpotError, TransientError
from components.pipeline.cluster.api import Api
from components.pipeline.tail import Report
from components.pipeline.wire import heard

logger = logging.getLogger(__name__)

PAUSE_SECONDS = 1.0
OVERLAP_SECONDS = 30
"""Asked for again after a break; lines that were there already are known by their timestamps."""


FINISH_SECONDS = 10.0
"""Longest wait for the rest of the log of a pod that has ended."""


class PodLog:
    """Passes a pod's log on: lines to a file and to the logger, reports to whoever wants them, all in the caller's thread."""

    def __init__(self, api: Api, path: Path, on_report: Callable[[Report], None]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.api, self.file, self.on_report = api, path.open("w", encoding="utf-8"), on_report
        self.stream: LogStream | None = None

    def __enter__(self) -> "PodLog":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    @property
    def begun(self) -> bool:
        """Whether a pod is being followed."""
        return self.stream is not None

    def begin(self, pod: str) -> None:
        """Follows this pod from now on."""
        self.stream = LogStream(self.api, pod)

    def pass_on(self) -> None:
        """What has come since the last call."""
        for line in self.stream.lines() if self.stream else ():
            said = heard(line)
            if said is None:
                self.file.write(line + "\n")
                self.file.flush()
                logger.info("%s", line)
            elif "report" in said:
                self.on_report(said["report"])

    def finish(self, pod: str | None) -> None:
        """The pod (None: it is gone) has ended: what is left of its log."""
        if self.stream is None and pod is not None:
            self.begin(pod)
        if self.stream is not None:
            self.stream.finish(FINISH_SECONDS)
            self.pass_on()
            if self.stream.refused:
                logger.warning("%s", self.stream.refused)


class LogStream:
    """Follows one pod in a thread of its own; `lines` hands over what has come, to the thread that waits."""

    def __init__(self, api: Api, pod: str) -> None:
        self.api, self.pod = api, pod
        self.queue: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.over = threading.Event()
        """Set when the pod is known to have ended: the stream's end is then the log's end."""
        self.last = ""
        self.heard_at = time.monotonic()
        self.refused: StockpotError | None = None
        self.thread = threading.Thread(target=self._run, name=f"log-{pod}", daemon=True)
        self.thread.start()

    def lines(self) -> Iterator[str]:
        """What is new."""
        while not self.queue.empty():
            yield self.queue.get()

    def finish(self, seconds: float) -> None:
        """The pod has ended: waits until its whole log is here, at most `seconds`."""
        self.over.set()
        self.thread.join(seconds)

    def _run(self) -> None:
        first = True
        while True:
            last_round = self.over.is_set()
            try:
                self._follow(None if first else int(time.monotonic() - self.heard_at) + OVERLAP_SECONDS)
            except TransientError:
                last_round = False
            except StockpotError as error:
                self.refused = error
                return
            first = False
            if last_round:
                return
            self.over.wait(PAUSE_SECONDS)

    def _follow(self, since: int | None) -> None:
        rest = b""
        for piece in self.api.follow_log(self.pod, since):
            *whole, rest = (rest + piece).split(b"\n")
            for line in whole:
                stamp, _, text = line.decode(errors="replace").partition(" ")
                if stamp > self.last:
                    self.last, self.heard_at = stamp, time.monotonic()
                    self.queue.put(text)
