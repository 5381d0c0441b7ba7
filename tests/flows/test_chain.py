"""The whole chain on the micro recipe, as a user meets it: run it, run it again, change something, kill it."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, Ended, Project, make_project

pytestmark = pytest.mark.slow

STEPS = [
    "draw", "ingest-captions", "ingest-questions", "llm", "curate", "vision", "projector",
    "instruct-a", "instruct-b", "instruct-c", "soup", "evaluate", "package", "promote",
]  # fmt: skip


def tracked_runs(project: Project) -> list[tuple[str, str]]:
    with sqlite3.connect(project.root / ".stockpot/mlflow.db") as db:
        return db.execute("select name, status from runs").fetchall()


def test_a_run_ends_with_one_line_that_says_it_all(finished: tuple[Project, Ended]) -> None:
    line = finished[1].line
    assert set(line) == {"recipe", "run_id", "steps", "data", "scores", "registry", "tracking_uri"}
    assert line["recipe"] == "micro"
    assert sorted(s["name"] for s in line["steps"]) == sorted(STEPS)
    assert set(finished[1].states.values()) == {"ran"}
    assert all(s["seconds"] > 0 for s in line["steps"] if s["name"] != "promote")
    data = line["data"]
    assert data["rows_in"] > data["rows_kept"] > 0
    assert data["quarantined"] >= 4  # the recipe's truncated, missing and unanswered rows
    assert set(line["scores"]["candidates"]) == {"a", "b", "c"}
    assert set(line["scores"]["soup"]["kinds"]) == {"color", "shape", "count"}
    assert line["registry"]["name"] == "stockpot-micro"
    assert line["registry"]["version"] in (1, "1")
    assert line["registry"]["promoted"] is True
    assert line["registry"]["alias"] == "champion"


def test_mlflow_has_a_parent_and_a_child_for_every_step_that_ran(finished: tuple[Project, Ended]) -> None:
    project, ended = finished
    runs = tracked_runs(project)
    assert {status for _, status in runs} == {"FINISHED"}
    assert set(STEPS) - {"promote"} <= {name for name, _ in runs}
    with sqlite3.connect(project.root / ".stockpot/mlflow.db") as db:
        losses = db.execute("select r.name, count(*) from metrics m join runs r using (run_uuid) where m.key = 'loss' group by r.name").fetchall()
    assert {"llm", "vision", "projector", "instruct-a"} <= {name for name, _ in losses}
    artifacts = {p.name for p in (project.root / ".stockpot/mlartifacts").rglob("*") if ended.line["run_id"] in str(p)}
    assert {"dvc.lock", "params.yaml", "scores.png", "card.html", "card.json"} <= artifacts


def test_prefect_shows_the_run_by_recipe_and_data_version_and_its_artifacts(finished: tuple[Project, Ended], prefect_server: dict[str, str]) -> None:
    def post(path: str) -> Any:
        request = urllib.request.Request(f"{prefect_server['PREFECT_API_URL']}/{path}/filter", b"{}", {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as reply:
            return json.load(reply)

    assert any(run["name"].startswith("micro-") and run["state_name"] == "Completed" for run in post("flow_runs"))
    assert set(STEPS) <= {run["name"] for run in post("task_runs")}
    assert {"summary", "vision-progress"} <= {artifact["key"] for artifact in post("artifacts")}


def test_the_second_run_does_nothing_and_asks_no_server(project: Project) -> None:
    runs = len(tracked_runs(project))
    again = project.stockpot("run", "micro", "--json", PREFECT_API_URL="http://127.0.0.1:1/api")
    assert again.code == 0, again.err
    assert set(again.states.values()) == {"reused"}
    assert "temporary" not in again.err  # no Prefect server was asked for
    assert len(tracked_runs(project)) == runs
    assert again.line["registry"]["version"] in (1, "1")


def test_the_other_door_has_nothing_to_do_either(project: Project) -> None:
    assert "up to date" in project.dvc("status")
    assert "Running stage" not in project.dvc("repro")
    assert "scores.json" in project.dvc("metrics", "show")


def test_a_repro_in_a_fresh_clone_is_all_that_a_run_needs(finished: tuple[Project, Ended], tmp_path: Path, prefect_server: dict[str, str]) -> None:
    clone = make_project(tmp_path / "clone", prefect_server)
    assert clone.stockpot("use", "micro").code == 0
    assert "Running stage 'package'" in clone.dvc("repro")
    ended = clone.stockpot("run", "micro", "--json")
    assert ended.code == 0, ended.err
    assert {n: s for n, s in ended.states.items() if n != "promote"} == {n: "reused" for n in STEPS if n != "promote"}
    assert (clone.root / "dvc.lock").read_text() == (finished[0].root / "dvc.lock").read_text()  # same inputs, same recipe, same bytes


def test_an_override_reruns_the_candidates_and_what_follows_and_nothing_else(project: Project) -> None:
    before = {f: (project.root / f).read_bytes() for f in ("params.yaml", "dvc.yaml", "dvc.lock")}
    ended = project.stockpot("run", "micro", "--set", "stages.instruct.lr=2e-3", "--json")
    assert ended.code == 0, ended.err
    assert {n for n, s in ended.states.items() if s == "ran"} == {"instruct-a", "instruct-b", "instruct-c", "soup", "evaluate", "package", "promote"}
    assert {f: (project.root / f).read_bytes() for f in before} == before  # another recipe than the one in force: the checkout is not touched


def test_a_run_that_is_killed_in_a_candidate_goes_on_where_it_was(finished: tuple[Project, Ended], project: Project) -> None:
    overrides = ("--set", "stages.instruct.schedule.steps=60", "--set", "stages.instruct.candidates.a={data: {subset_seed: 1}}")
    profile = project.root / "often.yaml"
    profile.write_text("{checkpoint_seconds: 0.05, parallel_units: 1, grace_seconds: 5}\n")
    run = project.start("run", "micro", *overrides, "--json", STOCKPOT_PROFILE=str(profile))
    checkpoints = project.root / ".stockpot/ckpt"
    wait_until(lambda: any(checkpoints.rglob("manifest.json")) and any((project.root / ".stockpot/work").glob("instruct-*/metrics.jsonl")), run)
    os.killpg(run.pid, signal.SIGKILL)
    run.communicate()
    ended = project.stockpot("run", "micro", *overrides, "--json", STOCKPOT_PROFILE=str(profile))
    assert ended.code == 0, ended.err
    assert ended.states["projector"] == "reused"
    assert not list(checkpoints.rglob("manifest.json"))  # removed when the outputs are committed
    logs = "".join(p.read_text() for p in (project.root / ".stockpot/logs").glob("instruct-*.log"))
    assert "going on after step" in logs
    unbroken = finished[0].copy(project.root.parent / "unbroken")
    straight = unbroken.stockpot("run", "micro", *overrides, "--json")
    assert straight.line["scores"] == ended.line["scores"]
    digests = [sorted(p.name for p in (x.root / ".dvc/cache/runs").glob("*/*/*")) for x in (project, unbroken)]
    assert digests[0] == digests[1]  # the same records: the same bytes


def wait_until(condition: Any, process: "subprocess.Popen[str]") -> None:
    for _ in range(2400):
        if condition():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    raise AssertionError("waited too long")


def test_the_champion_answers_where_this_project_is_not_installed(finished: tuple[Project, Ended], tmp_path: Path) -> None:
    project, ended = finished
    program = """
import sys, mlflow, pandas
from pathlib import Path
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/stockpot-micro@champion")
image = sorted(Path(sys.argv[2]).glob("*.png"))[0]
print(len(model.predict(pandas.DataFrame([{"image": str(image), "question": "what color is it ?"}]))))
assert not [m for m in sys.modules if m.split(".")[0] in ("components", "flows", "tasks")], "the package needs this project"
"""
    images = project.root / "out/draw/data/images"
    done = subprocess.run([sys.executable, "-c", program, ended.line["tracking_uri"], str(images)], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("1")


def test_predict_answers_on_the_command_line(finished: tuple[Project, Ended]) -> None:
    project = finished[0]
    image = sorted((project.root / "out/draw/data/images").glob("*.png"))[0]
    ended = project.stockpot("predict", "--model", "models:/stockpot-micro@champion", str(image), "what color is it ?", "--json")
    assert ended.code == 0, ended.err
    assert isinstance(ended.line["answer"], str)


def test_status_names_every_step_and_the_champion(finished: tuple[Project, Ended]) -> None:
    line = finished[0].stockpot("status", "micro", "--json").line
    assert {s["state"] for s in line["steps"]} == {"done"}
    assert line["registry"]["alias"] == "champion"


def test_a_run_without_any_server_uses_a_temporary_one(finished: tuple[Project, Ended], tmp_path: Path) -> None:
    project = finished[0].copy(tmp_path / "alone")
    ended = project.stockpot(
        "run", "micro", "--set", "evaluate.max_new_tokens=3", "--json",
        PREFECT_API_URL="http://127.0.0.1:1/api", PREFECT_HOME=str(tmp_path / "prefect"),
    )  # fmt: skip
    assert ended.code == 0, ended.err
    assert "using a temporary one" in ended.err
    assert ended.states["evaluate"] == "ran"
    assert ended.states["instruct-a"] == "reused"


def test_the_code_of_a_step_is_all_that_it_loads(tmp_path: Path) -> None:
    from components.pipeline.closure import code_of
    from components.pipeline.graph import compile_recipe
    from components.recipe.loader import load
    from components.steps_table import STEPS as TABLE

    compile_recipe(load(ROOT / "tests/recipes/micro.yaml")).write(tmp_path)
    program = """
import importlib, sys
from components import steps
name = sys.argv[1]
steps.run(name) if name == "draw" else importlib.import_module(steps.module_of(name))
print("\\n".join(m for m in sys.modules if m.split(".")[0] == "components"))
"""
    for kind in TABLE:
        name = "llm" if kind == "train" else kind
        done = subprocess.run([sys.executable, "-c", program, name], cwd=tmp_path, capture_output=True, text=True, check=True)
        loaded = {m.replace(".", "/") for m in done.stdout.split()}
        declared = {f.removesuffix(".py").removesuffix("/__init__") for f in code_of(name)}
        assert loaded <= declared, f"{name}: {loaded - declared}"


def test_ctrl_c_saves_and_ends_and_the_next_run_goes_on(finished: tuple[Project, Ended], tmp_path: Path) -> None:
    project = finished[0].copy(tmp_path / "project")
    overrides = ("--set", "stages.instruct.schedule.steps=4000", "--set", "stages.instruct.candidates.a={data: {subset_seed: 1}}")
    dead = "http://127.0.0.1:1/api"  # so that it starts a temporary server, which must not outlive it
    run = project.start("run", "micro", *overrides, "--json", PREFECT_API_URL=dead, PREFECT_HOME=str(tmp_path / "prefect"))
    wait_until(lambda: any((project.root / ".stockpot/work").glob("instruct-a*/metrics.jsonl")), run)
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does: the whole foreground group
    out, err = run.communicate(timeout=120)
    assert run.returncode == 75, err
    assert "instruct-a: instruct-a: stopped" in err
    assert json.loads(out.strip().splitlines()[-1])["steps"]
    assert list((project.root / ".stockpot/ckpt").rglob("manifest.json"))  # what was trained is kept
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(project.root) not in listed
