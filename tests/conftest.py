"""What the end-to-end tests share: one Prefect server, one finished micro chain, and copies of its project to go on from."""

import contextlib
import gc
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from tests import s3_server as ceph

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent

for name in [n for n in os.environ if n.startswith(("STOCKPOT_", "MLFLOW_", "PREFECT_", "AWS_"))]:
    del os.environ[name]  # the tests must not meet the developer's own servers
os.environ |= {"AWS_CONFIG_FILE": "/none", "AWS_SHARED_CREDENTIALS_FILE": "/none", "AWS_EC2_METADATA_DISABLED": "true"}
os.environ["OMP_NUM_THREADS"] = "1"
gc.set_threshold(100_000, 50, 100)  # a test process loads all that there is, and Python would look through it again and again


@dataclass
class Ended:
    """A finished `stockpot` command."""

    code: int
    out: str
    err: str

    @property
    def line(self) -> dict[str, Any]:
        """The last line of standard output, as JSON."""
        return json.loads(self.out.strip().splitlines()[-1])

    @property
    def states(self) -> dict[str, str]:
        """Step -> ran, reused or failed."""
        return {s["name"]: s["state"] for s in self.line["steps"]}


@dataclass
class Project:
    """A checkout with the micro recipe."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)

    def env(self, **more: str) -> dict[str, str]:
        """The environment of an activated virtual environment."""
        return {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", **self.environment, **more}

    def start(self, *arguments: str, **more: str) -> "subprocess.Popen[str]":
        """Starts `stockpot` in a process group of its own."""
        command = [str(BIN / "stockpot"), *arguments]
        return subprocess.Popen(command, cwd=self.root, env=self.env(**more), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)

    def stockpot(self, *arguments: str, **more: str) -> Ended:
        """Runs `stockpot` to its end."""
        process = self.start(*arguments, **more)
        out, err = process.communicate(timeout=500)
        return Ended(process.returncode, out, err)

    def dvc(self, *arguments: str) -> str:
        """Runs `dvc`; it must succeed."""
        done = subprocess.run([str(BIN / "dvc"), *arguments], cwd=self.root, env=self.env(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def copy(self, to: Path) -> "Project":
        """The same project, cache and registry somewhere else."""
        shutil.copytree(self.root, to, symlinks=True)
        with contextlib.closing(sqlite3.connect(to / ".stockpot/mlflow.db")) as db, db:  # MLflow keeps absolute places
            for table, column in MLFLOW_PLACES:
                db.execute(f"update {table} set {column} = replace({column}, ?, ?)", (str(self.root), str(to)))
        return Project(to, self.environment)


MLFLOW_PLACES = (("experiments", "artifact_location"), ("runs", "artifact_uri"), ("model_versions", "source"), ("model_versions", "storage_location"))


def make_project(root: Path, environment: dict[str, str]) -> Project:
    """A fresh checkout: code, recipes, profiles, DVC; no cache, no registry."""
    root.mkdir(parents=True)
    for folder in ("components", "recipes", "infra"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "tests/recipes/micro.yaml", root / "recipes/micro.yaml")
    shutil.copy(ROOT / ".dvcignore", root)
    (root / ".dvc").mkdir()
    (root / ".dvc/config").write_text("[core]\n    analytics = false\n    no_scm = true\n")
    return Project(root, environment)


def free_port() -> int:
    """A port that nobody listens on right now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture(autouse=True)
def same_environment() -> Iterator[None]:
    """A test leaves the environment as it found it: `mlflow.set_tracking_uri` writes there, for the processes that follow."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Ends the shared servers when every worker is done with them."""
    if not hasattr(session.config, "workerinput"):
        for file in common(session.config).glob("s3/ceph.pid"):
            os.killpg(int(file.read_text()), signal.SIGKILL)  # nothing of it is wanted: no time for a clean end
        for file in common(session.config).glob("*/server.pid"):
            pid = int(file.read_text())
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGTERM)
                for _ in range(40):
                    time.sleep(0.25)
                    os.killpg(pid, 0)
                os.killpg(pid, signal.SIGKILL)


def common(config: pytest.Config) -> Path:
    """A folder that all workers of this test run share."""
    base: Path = config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
    return base.parent if hasattr(config, "workerinput") else base


def once(folder: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `make` returns; the first worker that asks makes it, the others wait for it."""
    folder.mkdir(exist_ok=True)
    made = folder / "made.json"
    with FileLock(folder / "lock"):
        if not made.exists():
            made.write_text(json.dumps(make()))
    return json.loads(made.read_text())


@pytest.fixture(scope="session")
def prefect_server(request: pytest.FixtureRequest) -> dict[str, str]:
    """The environment of a real Prefect server on loopback."""
    home = common(request.config) / "prefect"
    return once(home, lambda: start_prefect(home))


def start_prefect(home: Path) -> dict[str, str]:
    """Starts a server in a process group of its own; its pid is in `server.pid`."""
    port = free_port()
    env = {"PREFECT_API_URL": f"http://127.0.0.1:{port}/api", "PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    pages = {"PREFECT_SERVER_UI_API_URL": env["PREFECT_API_URL"]}
    with (home / "server.log").open("w") as log:
        command = [str(BIN / "prefect"), "server", "start", "--host", "127.0.0.1", "--port", str(port)]
        server = subprocess.Popen(command, env={**os.environ, **env, **pages}, stdout=log, stderr=log, start_new_session=True)
    (home / "server.pid").write_text(str(server.pid))
    for _ in range(480):
        try:
            urllib.request.urlopen(f"{env['PREFECT_API_URL']}/health", timeout=1)
            return env
        except OSError:
            assert server.poll() is None, (home / "server.log").read_text()
            time.sleep(0.25)
    raise AssertionError((home / "server.log").read_text())


@pytest.fixture(scope="session")
def s3_server(request: pytest.FixtureRequest) -> ceph.S3Server:
    """A real S3 server on loopback."""
    if absent := ceph.absent():
        pytest.skip(f"no S3 server: {', '.join(absent)} not installed: {ceph.INSTALL}")
    folder = common(request.config) / "s3"
    return ceph.S3Server(**once(folder, lambda: vars(ceph.start(folder))))


@pytest.fixture(scope="session")
def finished(request: pytest.FixtureRequest, prefect_server: dict[str, str]) -> tuple[Project, Ended]:
    """A project in which the micro chain has run once, and how that run ended. Read it, copy it, do not change it."""
    folder = common(request.config) / "micro"

    def run() -> dict[str, Any]:
        ended = make_project(folder / "project", prefect_server).stockpot("run", "micro", "--use", "--json")
        assert ended.code == 0, ended.err
        return vars(ended)

    ended = Ended(**once(folder, run))
    return Project(folder / "project", prefect_server), ended


@pytest.fixture
def project(finished: tuple[Project, Ended], tmp_path: Path) -> Project:
    """A copy of the finished project, to go on from."""
    return finished[0].copy(tmp_path / "project")


@pytest.fixture
def fresh(tmp_path: Path, prefect_server: dict[str, str]) -> Project:
    """A project in which nothing has run."""
    return make_project(tmp_path / "fresh", prefect_server)
