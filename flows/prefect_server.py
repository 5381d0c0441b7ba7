"""Which Prefect server a run uses: one that answers, else a temporary one of its own. To be called before Prefect is imported."""

import atexit
import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from rich.console import Console

from components.errors import SetupError
from components.settings import Settings
from flows.running import recorded

START_SECONDS = 180
"""Longest wait for a temporary server; 13 to 29 s were seen on two cores."""
PR_SET_PDEATHSIG = 1
"""prctl(2): the signal that a process gets when its parent dies."""


def prepare_prefect(settings: Settings, debug: bool) -> None:
    """Sets what Prefect must find in the environment when it is imported, and starts a server where none answers.

    What the user's environment says wins. Raises SetupError when no server can be started.
    """
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("PREFECT_LOGGING_EXTRA_LOGGERS", "components")
    os.environ.setdefault("PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW", "ignore")  # what threads of the launcher say belongs to no task
    os.environ.setdefault("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", "30")  # infra/automations.yaml listens to it
    if not debug:
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    url = server_address(settings)
    if not answers(url):
        if "PREFECT_API_URL" in os.environ:
            Console(stderr=True).print(f"Prefect server {url} does not answer: using a temporary one", style="yellow")
        url = start_temporary_server(settings.home.absolute())
    os.environ["PREFECT_API_URL"] = url


def server_address(settings: Settings) -> str:
    """Where a server is looked for: PREFECT_API_URL, else the one that `stockpot ui` has started for this checkout, else the port of the settings."""
    return os.environ.get("PREFECT_API_URL") or own_server(settings.home) or f"http://127.0.0.1:{settings.prefect_port}/api"


def own_server(home: Path) -> str | None:
    """The API address of the server that `stockpot ui` has started for this checkout; None when it does not run."""
    return next((r.address for r in recorded(home / "ui") if r.name == "prefect" and r.leader()), None)


def server_environment(home: Path) -> dict[str, str]:
    """For a server of this checkout: its database is `.stockpot/prefect/`, so that `stockpot ui` shows the runs of temporary servers too."""
    rest = {k: v for k, v in os.environ.items() if k != "PREFECT_API_URL"}
    leases = "prefect.server.concurrency.lease_storage.filesystem"  # in memory, a run that was cut off would block its deployment for ever
    ours = {"PREFECT_HOME": str(home / "prefect"), "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": leases}
    return {**ours, **rest}


def start_temporary_server(home: Path) -> str:
    """The address of a server on a free port of loopback that ends with this process, after Prefect has sent its last events there.

    It has a session of its own: Ctrl-C is for the flow. Raises SetupError when it does not start.
    """
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    log = home / "logs" / "prefect-server.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    address = f"http://127.0.0.1:{port}/api"
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui"]
    with log.open("wb") as out:
        server = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env=server_environment(home),
            start_new_session=True,
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - no other thread runs yet
        )
    atexit.register(_stop, server)  # runs after the threads' own exit, in which Prefect drains its queues
    deadline = time.monotonic() + START_SECONDS
    while not answers(address):
        if server.poll() is not None or time.monotonic() > deadline:
            raise SetupError(f"a temporary Prefect server did not start: see {log}; or start one yourself: prefect server start")
        time.sleep(0.2)
    return address


def _stop(server: "subprocess.Popen[bytes]") -> None:
    """Ends a server and its group. It takes over 10 s to end on SIGTERM; its database survives a kill."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(2)
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()


def _die_with_parent() -> None:
    """In the child: SIGTERM when the flow dies without a word. Linux only; elsewhere the server would stay."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def answers(api_url: str) -> bool:
    """Whether a Prefect server is there."""
    try:
        with urllib.request.urlopen(f"{api_url.rstrip('/')}/health", timeout=2) as reply:  # noqa: S310
            return reply.status == 200
    except (urllib.error.URLError, OSError, ValueError):
        return False
