"""SIGTERM during training: a flag that the loop looks at once a step, instead of an exception in the middle of one."""

import signal
import threading
from types import TracebackType
from typing import Any


class StopSignal:
    """While this context lasts, SIGTERM and SIGINT only set a flag; afterwards the handlers of before are back.

    Calling it says whether a signal came. Outside the main thread, where Python allows no handlers, it never does.
    """

    def __init__(self) -> None:
        self._came = False
        self._before: dict[int, Any] = {}

    def __call__(self) -> bool:
        return self._came

    def __enter__(self) -> "StopSignal":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        return self

    def _note(self, *_: Any) -> None:
        self._came = True

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
