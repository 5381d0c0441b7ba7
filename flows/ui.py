"""`stockpot ui`: Prefect server, MLflow server and a worker of this checkout, on loopback, until `stockpot ui --stop`.

What runs is kept in `.stockpot/ui/`: a file and a log per program. Each program leads a session of its own, so that ending it ends
all that it started. Prefect is not imported here: its command line and its REST interface are all that is needed.
"""

import contextlib
import fcntl
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from components.errors import SetupError
from components.recipe.loader import read_yaml
from components.runtime import load_runtime
from components.settings import Settings
from components.tracking.store import client, default_uri, sqlite_path, without_password
from flows.prefect_server import START_SECONDS, answers, server_environment
from flows.running import Running, launch, recorded

POOL = "workstation"
DEPLOYMENTS, AUTOMATIONS = Path("infra/prefect.yaml"), Path("infra/automations.yaml")
POLL_SECONDS = 3
"""Time between two looks of the worker for runs to start."""
ATTEMPTS = 5
PREFECT = [sys.executable, "-m", "prefect"]
TITLES = {"worker": "worker", "mlflow": "MLflow", "prefect": "Prefect"}
"""In the order in which they end: a run that is stopped tells the server so."""


def start(settings: Settings) -> None:
    """Starts what does not run yet, registers deployments and automations, and prints the addresses.

    Raises SetupError for a port that is taken and for a program that does not come up; what this call started is ended then.
    """
    out = Console(highlight=False, soft_wrap=True)
    with _locked(settings) as folder:
        for gone in (r for r in recorded(folder) if r.leader() is None):
            gone.end(_patience(gone.name, settings))  # it may have left processes behind
        known = {r.name: r for r in recorded(folder) if r.leader()}
        if known.keys() >= set(_wanted(settings)):
            out.print("already running:")
        else:
            started: list[Running] = []
            try:
                _start_missing(settings, folder, known, started)
            except BaseException:
                for running in started:
                    running.end(_patience(running.name, settings))
                raise
            known |= {r.name: r for r in started}
    out.print(f"Prefect  {known['prefect'].address.removesuffix('/api')}   deployments: retrain (nightly), curate, evaluate, promote")
    uri = settings.tracking_uri if "mlflow" not in known else known["mlflow"].address
    out.print(f"MLflow   {without_password(str(uri))}")
    out.print("a worker waits for runs; `make ui-stop` (`stockpot ui --stop`) ends all of it")


def stop(settings: Settings) -> None:
    """Ends what `start` has started, and nothing else. Running steps save what they have."""
    out = Console(highlight=False, soft_wrap=True)
    with _locked(settings) as folder:
        found = {r.name: r for r in recorded(folder)}
        ended = [name for name in TITLES if name in found and found[name].end(_patience(name, settings))]
    out.print(f"stopped: {', '.join(TITLES[name] for name in ended)}" if ended else "nothing to stop: `stockpot ui` has started nothing that still runs")


def _patience(name: str, settings: Settings) -> float:
    """Seconds between SIGTERM and SIGKILL for what a program has started: running steps have the profile's grace time to save."""
    return load_runtime(settings.profile).grace_seconds + 20 if name == "worker" else 0


# -- starting ----------------------------------------------------------------------------------------------------------------


def _wanted(settings: Settings) -> list[str]:
    """An MLflow server that the user has elsewhere is used, not doubled."""
    external = (settings.tracking_uri or "").startswith(("http:", "https:"))
    return ["prefect", "worker"] if external else ["prefect", "mlflow", "worker"]


def _start_missing(settings: Settings, folder: Path, known: dict[str, Running], started: list[Running]) -> None:
    home = settings.home.absolute()
    api = f"http://127.0.0.1:{settings.prefect_port}/api"
    environment = {**server_environment(home), "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    missing = [name for name in _wanted(settings) if name not in known]
    for name, port in (("prefect", settings.prefect_port), ("mlflow", settings.mlflow_port)):
        if name in missing:
            _check_port(port, f"STOCKPOT_{name.upper()}_PORT")
    if "mlflow" in missing:
        uri = settings.tracking_uri or default_uri(home)
        if (file := sqlite_path(uri)) and not file.exists():
            client(uri)  # makes the store whole before a server looks at it
        command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--workers", "1"]
        command += ["--host", "127.0.0.1", "--port", str(settings.mlflow_port), "--serve-artifacts", "--artifacts-destination", str(home / "mlartifacts")]
        calm = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        started.append(launch("mlflow", command, {**environment, **calm}, folder, f"http://127.0.0.1:{settings.mlflow_port}"))
    if "prefect" in missing:
        command = [*PREFECT, "server", "start", "--host", "127.0.0.1", "--port", str(settings.prefect_port)]
        started.append(launch("prefect", command, {**environment, "PREFECT_SERVER_UI_API_URL": api}, folder, api))
    else:
        api = known["prefect"].address
    environment |= {"PREFECT_API_URL": api}
    for running in started:
        _wait(running, folder)
    _register(api, environment, folder)
    if "worker" in missing:
        _hand_back(api)
        command = [*PREFECT, "worker", "start", "--pool", POOL, "--type", "process", "--name", POOL]
        worker = {"PREFECT_WORKER_QUERY_SECONDS": str(POLL_SECONDS)}
        started.append(launch("worker", command, {**environment, **worker}, folder, api))


def _wait(running: Running, folder: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not answers(running.address):
        if running.leader() is None or time.monotonic() > deadline:
            raise SetupError(f"{TITLES[running.name]} did not come up at {running.address}: see {folder / running.name}.log")
        time.sleep(0.2)


def _check_port(port: int, variable: str) -> None:
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that was given up a moment ago is free
        try:
            s.bind(("127.0.0.1", port))
        except OSError as error:
            raise SetupError(f"port {port} is taken by another program: end that one, or set {variable} to another port, here or in .env") from error


def _register(api: str, environment: dict[str, str], folder: Path) -> None:
    """Work pool, deployments, automations: made, or put right."""
    if not _ask(f"{api}/work_pools/filter", {"work_pools": {"name": {"any_": [POOL]}}}):
        _ask(f"{api}/work_pools/", {"name": POOL, "type": "process"})
    with (folder / "deploy.log").open("wb") as log:
        names = [d["name"] for d in read_yaml(DEPLOYMENTS)["deployments"] if d["work_pool"]["name"] == POOL]
        command = [*PREFECT, "--no-prompt", "deploy", *(word for n in names for word in ("--name", n)), "--prefect-file", str(DEPLOYMENTS)]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**environment, "PWD": str(Path.cwd())}, check=False)
    if done.returncode:
        raise SetupError(f"{DEPLOYMENTS}: `prefect deploy` refused it: see {folder / 'deploy.log'}")
    there = {a["name"]: a["id"] for a in _ask(f"{api}/automations/filter", {})}
    for automation in read_yaml(AUTOMATIONS)["automations"]:
        known = there.get(automation["name"])
        _ask(f"{api}/automations/{known or ''}", automation, "PUT" if known else "POST")


def _hand_back(api: str) -> None:
    """Runs that an earlier worker had taken and not begun are scheduled again: there is nobody else who would begin them."""
    taken = {"state": {"type": {"any_": ["PENDING"]}}, "deployment_id": {"is_null_": False}}
    for run in _ask(f"{api}/flow_runs/filter", {"flow_runs": taken}):
        _ask(f"{api}/flow_runs/{run['id']}/set_state", {"state": {"type": "SCHEDULED", "message": "its worker was stopped before it began"}, "force": True})


def _ask(url: str, body: dict[str, Any], method: str = "POST") -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"}, method=method)  # noqa: S310  our own loopback server
    for attempt in range(ATTEMPTS):
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:  # noqa: S310
                return json.loads(reply.read() or "null")
        except urllib.error.HTTPError as error:
            if error.code != 503 or attempt == ATTEMPTS - 1:  # 503: the SQLite file was locked
                raise SetupError(f"{url}: Prefect refused it ({error.code}): {error.read().decode()[:300]}") from error
        time.sleep(attempt + 1)
    return None


@contextlib.contextmanager
def _locked(settings: Settings) -> Iterator[Path]:
    folder = settings.home.absolute() / "ui"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder
