"""What the tasks of one flow run share."""

import time
from collections.abc import Callable
from typing import Any, Protocol
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact

from components.chain import Chain
from components.pipeline.execute import Done
from components.pipeline.tail import Report
from components.registry.promote import Outcome

ARTIFACT_SECONDS = 2.0
"""Least time between two updates of a progress artifact."""


class Watcher(Protocol):
    """Who wants to hear of the steps: the terminal."""

    def started(self, stage: str) -> None:
        """A step begins."""
        ...

    def report(self, stage: str, line: Report) -> None:
        """A running step says how far it is."""
        ...

    def ended(self, stage: str, state: str, seconds: float) -> None:
        """A step ended: ran, reused or failed."""
        ...


class Session:
    """The planned chain, and who watches it. Not a dataclass: Prefect would look into it for futures."""

    def __init__(self, chain: Chain, watcher: Watcher) -> None:
        self.chain, self.watcher = chain, watcher

    def step(self, stage: str, upstream: dict[str, Done]) -> Done:
        """Finishes one step and tells the watcher."""
        self.watcher.started(stage)
        try:
            done = self.chain.step(stage, {name: d.record for name, d in upstream.items()}, self.reporter(stage))
        except BaseException:
            self.watcher.ended(stage, "failed", 0.0)
            raise
        self.watcher.ended(stage, "reused" if done.reused else "ran", done.seconds)
        return done

    def promote(self, upstream: dict[str, Done]) -> Outcome:
        """Lets the gate decide and tells the watcher."""
        self.watcher.started("promote")
        start = time.monotonic()
        try:
            outcome = self.chain.promote({name: d.record for name, d in upstream.items()})
        except BaseException:
            self.watcher.ended("promote", "failed", 0.0)
            raise
        self.watcher.ended("promote", "reused" if outcome.reused else "ran", time.monotonic() - start)
        return outcome

    def reporter(self, stage: str) -> Callable[[Report], None]:
        """Passes a step's reports to the terminal, and to the Prefect UI as a progress artifact."""
        artifact: UUID | None = None
        last = 0.0

        def report(line: Report) -> None:
            nonlocal artifact, last
            self.watcher.report(stage, line)
            if time.monotonic() - last < ARTIFACT_SECONDS and line["done"] < line["total"]:
                return
            last = time.monotonic()
            percent = 100.0 * line["done"] / max(1, line["total"])
            if artifact is None:
                made: Any = create_progress_artifact(progress=percent, key=f"{stage.replace('_', '-')}-progress", description=describe(line))
                artifact = made
            else:
                update_progress_artifact(artifact_id=artifact, progress=percent, description=describe(line))

        return report


def describe(line: Report) -> str:
    """`120/500, loss 0.412, 12 s left, 310 samples/s, 8,900 tokens/s`: of a report, what it has, the important things first."""
    words = [f"{line['done']}/{line['total']}"]
    formats = {"loss": "loss {:.3f}", "eta_seconds": "{:.0f} s left", "samples_per_second": "{:,.0f} samples/s", "tokens_per_second": "{:,.0f} tokens/s"}
    return ", ".join(words + [text.format(line[key]) for key, text in formats.items() if key in line])
