"""Where a unit runs, behind one small protocol: submit or adopt, wait with its log, cancel."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from components.pipeline.bundle import Bundle
from components.pipeline.tail import Report

STOP = threading.Event()
"""Set when this process was asked to stop (Ctrl-C): running units save and end with 75, and nothing is tried again."""


@dataclass(frozen=True)
class End:
    """How an attempt ended. `code` as in components/errors.py; 0: its record is there."""

    code: int
    error: str = ""
    message: str = ""


class Attempt(Protocol):
    """One unit on its way. Whoever has it waits for it; an attempt that nobody waits for is cancelled."""

    @property
    def reused(self) -> bool:
        """Whether it was finished by somebody else before it was submitted."""
        ...

    def wait(self, on_report: Callable[[Report], None]) -> End:
        """Waits until the unit is over. On any exception in here, and when STOP is set, the unit is cancelled: it saves and ends.

        What the step reports goes to `on_report`, its log to a file, in the caller's thread.
        """
        ...

    def cancel(self) -> None:
        """Tells the unit to save and to end."""
        ...


class Launcher(Protocol):
    """Starts units somewhere."""

    def check(self, stages: Sequence[str]) -> None:
        """Raises SetupError for what would keep these stages from running. Nothing is started."""
        ...

    def submit(self, bundle: Bundle) -> Attempt:
        """Starts a unit, or takes over the attempt that is under way: no unit runs twice at the same time."""
        ...

    def close(self) -> None:
        """Cancels what nobody has waited for, and what runs that are dead have left behind."""
        ...
