"""Waiting in tests: bounded, and with a word when it was in vain."""

import time
from collections.abc import Callable
from typing import Any


def until(found: Callable[[], Any], *, seconds: float, said: Callable[[], str] = lambda: "") -> Any:
    """What `found` returns, once it is true. AssertionError after `seconds`, with what `said` has to say."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := found():
            return value
        time.sleep(0.1)
    raise AssertionError(f"it did not happen\n{said()}")
