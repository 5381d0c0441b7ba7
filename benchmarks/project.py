"""A throw-away checkout to measure in: its own code, cache, registry and Prefect home; none of the user's servers."""

import contextlib
import fcntl
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flows.prefect_server import answers

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
REPEATS = 3
SERVER_SECONDS = 120.0
"""A Prefect server that does not answer within this time will not come."""
STOP_SECONDS = 30.0
"""From SIGTERM to SIGKILL: a unit saves its checkpoint within its grace time, 20 s."""


@dataclass
class Ended:
    """A finished command."""

    command: str
    code: int
    out: str
    err: str
    seconds: float
    cpu_seconds: float
    """Of the command and all its processes that ended before it."""

    @property
    def line(self) -> dict[str, Any]:
        """The last line of standard output, as JSON."""
        return json.loads(self.out.strip().splitlines()[-1])

    def must(self, promise: str, kept: bool = True) -> "Ended":
        """This, if the command succeeded and `kept` holds; else the benchmark ends: a figure of something else would mislead."""
        if self.code or not kept:
            raise SystemExit(f"{self.command}: exit code {self.code}; expected: {promise}\n{self.out[-2000:]}\n{self.err[-4000:]}")
        return self


@dataclass
class Project:
    """A checkout. Whatever runs in it imports the checkout's own code, so that an edit in the repository meanwhile changes nothing."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)

    def run(self, *command: str, env: Mapping[str, str] | None = None) -> Ended:
        """Runs a program of the virtual environment to its end, in a process group of its own that does not outlive this call."""
        start, cpu = time.perf_counter(), _cpu_seconds()
        process = self.start(*command, env=env)
        try:
            out, err = process.communicate()
        except BaseException:
            stop(process)
            raise
        return Ended(" ".join(command), process.returncode, out, err, time.perf_counter() - start, _cpu_seconds() - cpu)

    def start(self, *command: str, env: Mapping[str, str] | None = None) -> "subprocess.Popen[str]":
        """Starts a program of the virtual environment, in a process group of its own."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("STOCKPOT_", "MLFLOW_", "PREFECT_"))}
        own = {"PATH": f"{BIN}{os.pathsep}{clean['PATH']}", "PYTHONPATH": str(self.root), "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            [str(BIN / command[0]), *command[1:]], cwd=self.root, env={**clean, **own, **self.environment, **(env or {})},
            text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    def median(self, *command: str, promise: str, kept: Callable[[Ended], bool], env: Mapping[str, str] | None = None) -> Ended:
        """The run of median wall time, of a command that must succeed and keep its promise every time."""
        runs = [self.run(*command, env=env) for _ in range(REPEATS)]
        return sorted((e.must(promise, e.code == 0 and kept(e)) for e in runs), key=lambda e: e.seconds)[REPEATS // 2]


@contextlib.contextmanager
def throw_away() -> Iterator[Project]:
    """A fresh checkout in a temporary folder: code, recipes (micro too), profiles, DVC; no cache, no registry."""
    with scratch() as folder:
        root = folder / "project"
        for name in ("components", "tasks", "flows", "recipes", "infra"):
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "tests/recipes/micro.yaml", root / "recipes")
        shutil.copy(ROOT / ".dvcignore", root)
        (root / ".dvc").mkdir()
        (root / ".dvc/config").write_text("[core]\n    analytics = false\n    no_scm = true\n")
        try:
            yield Project(root, {"PREFECT_HOME": str(folder / "prefect"), "STOCKPOT_PREFECT_PORT": str(free_port())})
        finally:
            _wait_for_units(root / ".stockpot/work")


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A temporary folder; gone afterwards, whatever was left in it, also when this process is told to stop."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="stockpot-benchmark-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@contextlib.contextmanager
def prefect_server() -> Iterator[dict[str, str]]:
    """The environment of a Prefect server of our own on loopback, already answering."""
    with scratch() as home:
        port = free_port()
        env = {"PREFECT_API_URL": f"http://127.0.0.1:{port}/api", "PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
        clean = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
        with (home / "server.log").open("w") as log:
            command = [str(BIN / "prefect"), "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui"]
            server = subprocess.Popen(command, cwd=home, env={**clean, **env}, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        try:
            deadline = time.monotonic() + SERVER_SECONDS
            while not answers(env["PREFECT_API_URL"]):
                if server.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"the Prefect server did not start:\n{(home / 'server.log').read_text()[-4000:]}")
                time.sleep(0.25)
            yield env
        finally:
            stop(server)


def free_port() -> int:
    """A port of loopback on which nothing answers; a user's server may be on the usual one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def stop(process: "subprocess.Popen[Any]") -> None:
    """Ends a process that leads a group of its own, and then the group: a flow waits long for a temporary server that died before it."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _wait_for_units(work: Path) -> None:
    """A unit holds its lock as long as anything of it lives; one whose flow was killed still saves."""
    deadline = time.monotonic() + STOP_SECONDS
    for path in work.glob("*.lock"):
        with path.open("r+") as lock:
            while time.monotonic() < deadline:
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                time.sleep(0.1)
