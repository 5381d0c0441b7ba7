"""The whole chain as Jobs of a cluster: it ends where the local run ends, and leaves nothing behind when it is stopped."""

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import benchmarks.project
from benchmarks import cluster_faults
from components.errors import TransientError
from components.pipeline.graph import compile_recipe
from components.pipeline.opening import open_pipeline
from components.recipe.loader import load
from components.runtime import Runtime, load_runtime
from components.storage import open_storage
from tests import s3_server as ceph
from tests import waiting
from tests.conftest import ROOT, Ended, Project, make_project
from tests.fakes.cloud import NAMESPACE, Cloud, open_cloud
from tests.s3_server import S3Server

LONG = ("--set", "stages.instruct.schedule.steps=4000", "--set", f"stages.instruct.candidates={json.dumps(cluster_faults.CANDIDATES)}")
"""Candidates that none of the tests sees finished."""


until = partial(waiting.until, seconds=300)


def champion_digest(project: Path) -> list[str]:
    with sqlite3.connect(project / ".stockpot/mlflow.db") as db:
        return [value for (value,) in db.execute("select value from model_version_tags where key = 'stockpot.package'")]


@pytest.mark.slow
def test_the_documented_script_ends_in_the_champion_of_the_local_run(finished: tuple[Project, Ended], tmp_path: Path, prefect_server: dict[str, str]) -> None:
    if absent := ceph.absent():
        pytest.skip(f"no S3 server: {', '.join(absent)} not installed: {ceph.INSTALL}")
    folder = tmp_path / "cloud"
    folder.mkdir()
    script = [str(ROOT / "tests/fakes/micro_on_a_cluster.sh"), str(folder)]
    done = subprocess.run(script, env={**os.environ, **prefect_server}, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    first, second = (json.loads(line) for line in done.stdout.splitlines() if line.startswith("{"))
    assert {s["state"] for s in first["steps"]} == {"ran"}
    assert {s["state"] for s in second["steps"]} == {"reused"}
    assert first["scores"] == finished[1].line["scores"]
    local, there = finished[0].root, folder / "project"
    assert (there / "dvc.lock").read_text() == (local / "dvc.lock").read_text()  # every step's outputs, byte by byte
    assert champion_digest(there) == champion_digest(local) != []
    if shutil.which("kubectl"):
        assert len(re.findall(r"^stockpot-[\w-]+ ", done.stdout, re.MULTILINE)) == 13
    assert "Running stage 'evaluate'" in prefect_log(prefect_server)


def prefect_log(server: dict[str, str]) -> str:
    """What the tasks' logs have of the pods' logs."""
    body = json.dumps({"sort": "TIMESTAMP_DESC", "limit": 200}).encode()
    request = urllib.request.Request(f"{server['PREFECT_API_URL']}/logs/filter", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as reply:
        return "\n".join(entry["message"] for entry in json.load(reply) if entry["task_run_id"] and entry["name"] == "components.pipeline.cluster.logs")


@pytest.fixture
def cloud(tmp_path: Path, s3_server: S3Server) -> Iterator[Cloud]:
    with open_cloud(tmp_path / "cloud", s3_server) as running:
        yield running


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_stopped_deletes_its_jobs_and_their_checkpoints_are_kept(project: Project, cloud: Cloud, number: signal.Signals) -> None:
    project.dvc("remote", "add", "-d", "cloud", cloud.remote)
    run = project.start("run", "micro", *LONG, "--profile", str(cloud.profile), "--json", **cloud.env)
    store = open_storage(cloud.env["STOCKPOT_STORE"])
    with pytest.MonkeyPatch.context() as patch:
        for name, value in cloud.env.items():
            patch.setenv(name, value)
        store = open_storage(cloud.env["STOCKPOT_STORE"])
    until(lambda: any(k.endswith("manifest.json") for k in store.list("ckpt/")) or run.poll() is not None)
    os.killpg(run.pid, number)
    _, err = run.communicate(timeout=300)
    assert run.returncode != 0
    until(lambda: not cloud.cluster.jobs_in(NAMESPACE) and not cloud.cluster.pods(NAMESPACE))
    assert "Traceback" not in err or number == signal.SIGTERM, err
    assert any(k.endswith("manifest.json") for k in store.list("ckpt/"))
    assert {p.popen.returncode for p in cloud.cluster.kubelet.processes.values()} == {75}  # each saved and said so


@pytest.mark.slow
def test_training_goes_on_in_the_next_pod_bit_by_bit(finished: tuple[Project, Ended], tmp_path: Path, cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in cloud.env.items():
        monkeypatch.setenv(name, value)
    compiled = compile_recipe(load(ROOT / "tests/recipes/micro.yaml", ["stages.llm.schedule.steps=500"]))
    local, there = finished[0].copy(tmp_path / "local"), finished[0].copy(tmp_path / "there")
    there.dvc("remote", "add", "-d", "cloud", cloud.remote)
    store = open_storage(cloud.env["STOCKPOT_STORE"])

    def steps() -> list[int]:
        return [int(k.rsplit("/", 2)[1].removeprefix("step-")) for k in store.list("ckpt/") if k.endswith("manifest.json")]

    runtime = load_runtime(str(cloud.profile))
    with open_pipeline(compiled, there.root, there.root / ".stockpot", cloud.env["STOCKPOT_STORE"], runtime) as pipeline, ThreadPoolExecutor(1) as pool:
        records = pipeline.plan.done(pipeline.content)

        def attempt() -> Any:
            return pool.submit(pipeline.ensure, "llm", records, lambda _: None)

        def pod() -> Any:
            return next(p for p in cloud.cluster.pods(NAMESPACE) if p["status"]["phase"] == "Running")

        first = attempt()
        saved = max(until(steps))
        cloud.cluster.evict(pod())
        with pytest.raises(TransientError, match=r"llm: llm: stopped, step \d+ saved \(evicted: "):
            first.result(300)
        assert max(steps()) > saved  # within the grace time
        saved, second = max(steps()), attempt()
        until(lambda: max(steps()) > saved)
        cloud.cluster.kill(pod())
        with pytest.raises(TransientError, match="killed by a signal"):
            second.result(300)
        record = attempt().result(300).record
        logs = (there.root / ".stockpot/logs").glob("llm-*.log")  # one is of the run that the project was copied from
        assert any("llm: going on after step" in log.read_text() for log in logs)
        assert steps() == []
    with open_pipeline(compiled, local.root, local.root / ".stockpot", str(tmp_path / "store"), Runtime()) as pipeline:
        assert pipeline.ensure("llm", records, lambda _: None).record == record


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_whatever_happens_to_a_run_it_ends_as_the_local_one(
    finished: tuple[Project, Ended], tmp_path: Path, s3_server: S3Server, prefect_server: dict[str, str]
) -> None:
    """Two runs of the campaign: flow killed, pod killed, pod evicted, API server out of order, answers of the store cut."""
    done = benchmarks.project.Project(finished[0].root, finished[0].environment)
    local = cluster_faults.template(done, tmp_path / "local")
    local.run("stockpot", "run", "micro", *cluster_faults.OVERRIDES, "--use", "--json", env=prefect_server).must("a finished chain")
    for number in range(2):
        there = cluster_faults.template(done, tmp_path / f"run-{number}")
        figures = cluster_faults.trial(number, there, s3_server, prefect_server, tmp_path / f"cloud-{number}")
        assert figures["code"] == 0, figures["outcome"]
        assert figures["outcome"] == cluster_faults.outcome(local)
        assert (figures["adopted"], figures["doubled"], figures["jobs_left"], figures["units"]) == (3, 0, 0, 6)
        assert figures["resumed"] >= 1  # a pod that is told to go may just be done
        assert figures["bodies_cut"] > 0


# -- bad input -------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def checkout(tmp_path: Path, cloud: Cloud) -> Project:
    project = make_project(tmp_path / "checkout", cloud.env)
    project.dvc("remote", "add", "-d", "cloud", cloud.remote)
    return project


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("parallel_units:", "parralel_units:", "cloud.yaml: parralel_units: unknown key; did you mean parallel_units?"),
        ("processes: 1", "processes: 8", "nvidia.com/gpu, and any node with nvidia.com/gpu.product=NVIDIA-H100-80GB-HBM3 has at most 4"),
        ("- stockpot-store", "- stockpotstore", "there is no secret stockpotstore: create it"),
        ("admin", "default:nobody", "no right to create Jobs"),
        ("/store", "", "there is no such bucket"),
    ],
)
def test_what_is_wrong_is_one_sentence_before_anything_is_submitted(checkout: Project, cloud: Cloud, old: str, new: str, words: str) -> None:
    text = cloud.profile.read_text()
    if old == "processes: 1":
        text = text.replace("gpus: 1", "gpus: 8").replace("parallel_units", "processes: 8\nparallel_units")
    cloud.profile.write_text(text.replace(old, new))
    env = {}
    if old == "admin":
        env["KUBECONFIG"] = str(cloud.cluster.kubeconfig(new))
    if old == "/store":
        env["STOCKPOT_STORE"] = "s3://never-made/store"
    ended = checkout.stockpot("run", "micro", "--profile", str(cloud.profile), **env)
    assert ended.code == 2, ended.err
    assert words in ended.err
    assert ended.err.count("\n") == 1
    assert not cloud.cluster.jobs_in(NAMESPACE)
