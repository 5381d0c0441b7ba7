"""Unattended retraining as a user meets it: `stockpot ui`, the forms, the schedule, new rows, killed runs. Real server, worker, deployments."""

import base64
import csv
import io
import json
import os
import random
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image

from tests.conftest import ROOT, Project, free_port, make_project
from tests.prefect_api import PrefectApi
from tests.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

RECIPE = """
name: mine
sources: {rows: {path: data/rows.json, images: data/images}}
model:
  vision: {depth: 1, width: 32, heads: 2, patch: 8}
  llm: {hidden: 32, layers: 1, heads: 2, kv_heads: 1, ffn: 64, vocab: 300, tie_embeddings: true}
  min_pixels: 1024
  max_pixels: 2304
  context: 128
curation: {filters: [{kind: image_validity}]}
stages:
  instruct:
    trainable: {vision: {}, connector: {}, llm: {}}
    lr: 1e-3
    data: {sources: [rows]}
    batch: {samples: 8, max_tokens: 128}
    schedule: {steps: 4}
soup: {method: uniform, selection: data/selection.tsv}
evaluate: {benchmarks: {colors: {path: data/report.tsv}}, max_new_tokens: 2}
"""
COLORS = {"red": (220, 30, 30), "blue": (30, 30, 220), "green": (30, 160, 30)}
STEPS = {"ingest-rows", "curate", "instruct", "soup", "evaluate", "package", "promote"}


def picture(color: str, number: int) -> bytes:
    rng = random.Random(number)
    image = Image.new("RGB", (40, 40), COLORS[color])
    image.putpixel((rng.randrange(40), rng.randrange(40)), (rng.randrange(256), 255, 255))
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def add_rows(data: Path, first: int, number: int) -> None:
    """Appends `number` rows to the source."""
    file = data / "rows.json"
    rows = json.loads(file.read_text()) if file.exists() else []
    for i in range(first, first + number):
        color = list(COLORS)[i % 3]
        (data / "images" / f"{i}.png").write_bytes(picture(color, i))
        talk = [{"from": "human", "value": "<image>\nwhat color is it ?"}, {"from": "gpt", "value": color}]
        rows.append({"id": str(i), "image": f"{i}.png", "conversations": talk})
    file.write_text(json.dumps(rows))


def write_benchmark(path: Path, first: int) -> None:
    with path.open("w", newline="") as f:
        writer = csv.writer(f, delimiter="\t")
        writer.writerow(["index", "image", "question", "answer", "category"])
        for i in range(first, first + 6):
            color = list(COLORS)[i % 3]
            writer.writerow([i, base64.b64encode(picture(color, i)).decode(), "what color is it ?", color, "color"])


def make_files_project(root: Path) -> Project:
    """A checkout with files of a user's own, all in git."""
    project = make_project(root, {"STOCKPOT_PREFECT_PORT": str(free_port()), "STOCKPOT_MLFLOW_PORT": str(free_port())})
    (root / ".dvc/config").write_text("[core]\n    analytics = false\n")
    (root / "recipes/mine.yaml").write_text(RECIPE)
    (root / "data/images").mkdir(parents=True)
    add_rows(root / "data", 0, 24)
    write_benchmark(root / "data/selection.tsv", 1000)
    write_benchmark(root / "data/report.tsv", 2000)
    automations = root / "infra/automations.yaml"
    automations.write_text(automations.read_text().replace("within: 90", "within: 70"))  # two heartbeats may be missed on a busy machine
    git(root, "init", "-q")
    git(root, "config", "user.email", "a@example.org")
    git(root, "config", "user.name", "a")
    (root / ".gitignore").write_text("/.stockpot/\n/out\n/.dvc/cache\n/.dvc/tmp\n")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "first rows")
    assert project.stockpot("use", "mine").code == 0
    return project


def git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, text=True).stdout


class Station(PrefectApi):
    """A project in which `stockpot ui` runs."""

    def __init__(self, project: Project) -> None:
        super().__init__(f"http://127.0.0.1:{project.environment['STOCKPOT_PREFECT_PORT']}/api")
        self.project = project
        self.mlflow = f"http://127.0.0.1:{project.environment['STOCKPOT_MLFLOW_PORT']}"

    def run(self, name: str, **form: Any) -> tuple[str, str, dict[str, str]]:
        """Runs a deployment through the worker. Returns the final state's name and message, and task -> state name."""
        run = self.start(name, **form)
        wait_until(lambda: self.state(run)["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"))
        tasks = {t["name"]: t["state_name"] for t in self.ask("task_runs/filter", {"flow_runs": {"id": {"any_": [run]}}})}
        return self.state(run)["name"], self.state(run)["message"], tasks


wait_until = partial(until, seconds=500)


def leaders(root: Path) -> dict[str, int]:
    return {f.stem: json.loads(f.read_text())["pid"] for f in (root / ".stockpot/ui").glob("*.json")}


@pytest.fixture(scope="module")
def station(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Station]:
    project = make_files_project(tmp_path_factory.mktemp("station") / "project")
    up = project.stockpot("ui")
    assert up.code == 0, up.err + "".join(p.read_text() for p in (project.root / ".stockpot/ui").glob("*.log"))
    assert project.environment["STOCKPOT_PREFECT_PORT"] in up.out
    assert project.environment["STOCKPOT_MLFLOW_PORT"] in up.out
    try:
        yield Station(project)
    finally:
        project.stockpot("ui", "--stop")


@pytest.fixture(scope="module", autouse=True)
def killed(station: Station) -> str:
    """A run that was killed without a word, before all tests; the last but one looks at what became of it. Returns its id."""
    process = station.project.start("run", "mine", "--set", "seed=7", "--json")
    running = {"flow_runs": {"state": {"type": {"any_": ["RUNNING"]}}}}
    wait_until(lambda: station.ask("flow_runs/filter", running))
    time.sleep(1)  # for the first heartbeat
    os.killpg(process.pid, signal.SIGKILL)
    _, err = process.communicate()
    assert "temporary" not in err  # it has found the server
    return station.ask("flow_runs/filter", running)[0]["id"]


def test_the_schedule_and_the_forms_are_registered(station: Station) -> None:
    deployments = {d["name"]: d for d in station.ask("deployments/filter", {})}
    assert set(deployments) == {"retrain", "curate", "evaluate", "promote"}
    assert (ROOT / "infra/prefect.yaml").read_text() == (station.project.root / "infra/prefect.yaml").read_text()  # the real file
    assert all(d["global_concurrency_limit"]["limit"] == 1 and not d["paused"] and d["enforce_parameter_schema"] for d in deployments.values())
    fields = deployments["retrain"]["parameter_openapi_schema"]["definitions"]["GateForm"]["properties"]
    assert set(fields) == {"recipe", "data_revision", "profile", "overrides", "gate_minimum", "gate_margin"}
    assert all(f["description"] for f in fields.values())
    planned = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}, "deployment_id": {"any_": [deployments["retrain"]["id"]]}}}
    wait_until(lambda: station.ask("flow_runs/filter", planned))  # the server's scheduler has put it on the calendar
    assert station.ask("flow_runs/filter", planned)[0]["auto_scheduled"] is True


def test_a_second_start_says_that_it_runs_and_starts_nothing(station: Station) -> None:
    before = leaders(station.project.root)
    again = station.project.stockpot("ui")
    assert again.code == 0, again.err
    assert "already running" in again.out
    assert leaders(station.project.root) == before


def test_nothing_new_ends_at_once_and_new_rows_lead_to_a_new_version_and_a_verdict(station: Station) -> None:
    name, message, tasks = station.run("retrain")
    assert (name, set(tasks)) == ("Completed", STEPS), message
    assert "stockpot-mine version 1 is champion" in message

    name, message, tasks = station.run("retrain")
    assert (name, tasks) == ("Cached", {}), message
    assert "nothing new" in message
    assert "version 1 is champion" in message

    add_rows(station.project.root / "data", 24, 8)
    name, message, tasks = station.run("retrain", recipe="mine", gate_margin=1.0)
    assert name == "Completed", message
    assert {n for n, state in tasks.items() if state == "Completed"} == STEPS
    assert "version 2 is challenger" in message  # nothing exceeds the champion by more than 1
    with urllib.request.urlopen(f"{station.mlflow}/api/2.0/mlflow/registered-models/get?name=stockpot-mine") as reply:
        assert {a["alias"]: a["version"] for a in json.load(reply)["registered_model"]["aliases"]} == {"champion": "1", "challenger": "2"}

    name, message, tasks = station.run("retrain", data_revision="HEAD")
    assert (name, tasks) == ("Cached", {}), message  # the rows as they were committed: the first model again
    assert "version 1 is champion" in message


def test_a_run_from_the_command_line_shows_up_at_the_server(station: Station) -> None:
    ended = station.project.stockpot("run", "mine", "--set", "evaluate.max_new_tokens=3", "--json")
    assert ended.code == 0, ended.err
    assert ended.states["instruct"] == "reused"
    by_hand = {"flow_runs": {"deployment_id": {"is_null_": True}}, "sort": "START_TIME_DESC", "limit": 1}
    latest = station.ask("flow_runs/filter", by_hand)[0]
    assert latest["state_name"] == "Completed"
    assert latest["name"].startswith("mine-")


@pytest.mark.parametrize(
    ("deployment", "form", "sentence"),
    [
        ("retrain", {"recipe": "mien"}, "mien: no such recipe; did you mean mine?"),
        ("retrain", {"data_revision": "nowhere"}, "data revision nowhere: git knows no such revision"),
        ("curate", {"overrides": ["curation.filtres=[]"]}, "curation.filtres: unknown key; did you mean filters?"),
        ("evaluate", {"overrides": ["seed=99"]}, "instruct, soup not done yet: run the flow retrain first"),
    ],
)
def test_what_cannot_run_fails_with_a_sentence(station: Station, deployment: str, form: dict[str, Any], sentence: str) -> None:
    name, message, tasks = station.run(deployment, **form)
    assert (name, tasks) == ("Failed", {})
    assert sentence in message


def test_a_form_out_of_range_is_refused_before_anything_starts(station: Station) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        station.start("retrain", gate_margin=7)
    assert "maximum of 1" in refused.value.read().decode()


def test_the_parts_of_the_chain_run_on_demand(station: Station) -> None:
    name, message, _ = station.run("retrain")  # nothing is left to do, unless this test is the first of its process
    assert name in ("Completed", "Cached"), message
    name, message, tasks = station.run("curate", overrides=["sources.rows.category=other"])
    assert (name, tasks) == ("Completed", {"ingest-rows": "Completed", "curate": "Completed"}), message
    name, message, tasks = station.run("evaluate", overrides=["evaluate.benchmarks.colors.weight=2"])
    assert name == "Completed", message
    assert (name, tasks["evaluate"], tasks["instruct"]) == ("Completed", "Completed", "Cached"), message
    assert "package" not in tasks
    name, message, _ = station.run("promote")
    assert (name, "nothing new" in message) == ("Cached", True), message


def test_a_run_that_was_killed_without_a_word_is_marked_crashed(station: Station, killed: str) -> None:
    wait_until(lambda: station.state(killed)["type"] == "CRASHED")
    assert "no heartbeat" in station.state(killed)["message"]


def test_stop_lets_a_running_step_save_and_leaves_nothing_behind(station: Station) -> None:
    root = station.project.root
    run = station.start("retrain", overrides=["stages.instruct.schedule.steps=20000"])
    wait_until(lambda: any((root / ".stockpot/work").glob("instruct-*/metrics.jsonl")))
    assert station.state(run)["type"] == "RUNNING"
    pids = set(leaders(root).values())
    stopped = station.project.stockpot("ui", "--stop")
    assert stopped.code == 0, stopped.err
    assert "worker, MLflow, Prefect" in stopped.out
    assert list((root / ".stockpot/ckpt").rglob("manifest.json"))
    assert not [p for p in psutil.process_iter() if p.pid in pids or str(root) in " ".join(command_of(p))]
    assert "nothing to stop" in station.project.stockpot("ui", "--stop").out


def command_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_a_taken_port_is_a_sentence(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", {})
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = project.stockpot("ui", STOCKPOT_PREFECT_PORT=str(port), STOCKPOT_MLFLOW_PORT=str(free_port()))
    assert ended.code == 2
    assert f"port {port} is taken" in ended.err
    assert "STOCKPOT_PREFECT_PORT" in ended.err
    assert not leaders(project.root)
