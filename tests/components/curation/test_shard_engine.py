"""Workers, on both engines: the same bytes, also when one is killed; a step that starts again looks only at the shards that are left."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pyarrow as pa
import pytest
from ruamel.yaml import YAML

from components.curation import curate, shard_engine
from components.curation.fact_store import FactStore
from components.curation.filters import FILTERS
from components.curation.shard_engine import DEATHS, find
from components.errors import DataError, SetupError, TransientError
from components.profile import Profile
from components.recipe.curation import ExactDuplicates, ImageValidity
from components.step import Step
from tests.components.curation.corpora import ingested, picture, row
from tests.components.curation.slow import Deadly, Slow
from tests.waiting import until

ROOT = Path(__file__).parents[3]
POOL, RAY = {"data_workers": 2}, {"data_workers": 2, "data_engine": "ray"}


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STOCKPOT_CKPT", raising=False)
    rows = [row(f"a{i}", answer=f"answer {i % 5}", images=[b"damaged" if i == 8 else picture(i % 9, size=(40, 30))]) for i in range(30)]
    ingested("a", rows, shard_rows=5)
    ingested("b", [row(f"b{i}", images=[picture(i)], source="b") for i in range(12)], shard_rows=4)
    params = {"seed": 0, "sources": {"a": {}, "b": {}}, "curation": {"filters": [{"kind": "image_validity"}, {"kind": "exact_duplicates"}]}}
    YAML().dump(params, tmp_path / "params.yaml")
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, **profile: object) -> dict[str, bytes]:
    """Curates here; the files that are written."""
    monkeypatch.setenv("STOCKPOT_UNIT_PROFILE", json.dumps(profile))
    step = Step.open("curate")
    step.data.mkdir(parents=True, exist_ok=True)
    curate.run(step)
    return written()


def written() -> dict[str, bytes]:
    """All files of the step."""
    return {str(p): p.read_bytes() for p in sorted(Path("out/curate").rglob("*")) if p.is_file()}


def workers() -> list[psutil.Process]:
    """Processes below this one that look at shards."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            command = " ".join(process.cmdline())
        except psutil.Error:
            continue
        beneath_server = "forkserver" in command and not process.children()
        if beneath_server or command.startswith("ray::facts_of"):
            found.append(process)
    return found


def looked() -> list[str]:
    return Path("looked.txt").read_text(encoding="utf-8").split() if Path("looked.txt").exists() else []


def test_two_workers_and_ray_write_the_bytes_of_one_process(project, monkeypatch):
    alone = run(monkeypatch)
    assert len(alone) == 7
    assert json.loads(alone["out/curate/counts.json"])["by_reason"]["image_unreadable"] == 1
    assert run(monkeypatch, **POOL) == alone
    assert run(monkeypatch, **RAY) == alone


def test_workers_share_a_large_shard_and_an_empty_one_is_whole(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shard_engine, "PART_ROWS", 300)
    ingested("a", [row(f"a{i}", answer=f"answer {i % 700}") for i in range(900)], shard_rows=1000)  # row groups of 256
    ingested("b", [])
    shown = {n: (Path(f"out/ingest-{s}/data/part-00000.parquet"), s) for n, s in enumerate("ab")}
    filters = [FILTERS["exact_duplicates"](ExactDuplicates(), Step("curate", {}))]
    assert [range(0, 2), range(2, 4)] == list(shard_engine._parts(shown[0][0], 2))
    whole, parts = (dict(find(shown, filters, Profile(data_workers=workers))) for workers in (1, 2))
    assert [facts.num_rows for facts in (whole[0], whole[1])] == [900, 0]
    assert parts == whole


@pytest.mark.parametrize("profile", [POOL, RAY], ids=["pool", "ray"])
def test_a_worker_is_killed_and_the_bytes_are_the_same(project, monkeypatch, profile):
    monkeypatch.setitem(FILTERS, "image_validity", Slow)
    alone = run(monkeypatch)
    Path("looked.txt").unlink()
    killed: list[int] = []

    def kill() -> None:
        until(looked, seconds=60)
        victim = until(workers, seconds=60)[0]
        killed.append(victim.pid)
        victim.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    assert run(monkeypatch, **profile) == alone
    killer.join()
    assert killed
    until(lambda: not psutil.pid_exists(killed[0]) or psutil.Process(killed[0]).status() == psutil.STATUS_ZOMBIE, seconds=20)
    assert len(set(looked())) == 42


def test_workers_that_die_again_and_again_end_the_step_with_try_later(project, monkeypatch):
    monkeypatch.setitem(FILTERS, "image_validity", Deadly)
    monkeypatch.setenv("STOCKPOT_CKPT", str(project / "ckpt"))
    with pytest.raises(TransientError, match=f"died {DEATHS + 1} times, [1-9] of 9 shards are left"):
        run(monkeypatch, **POOL)


@pytest.mark.parametrize("number", [1, 2])
def test_a_step_that_was_killed_looks_only_at_the_shards_that_are_left(project, monkeypatch, number):
    monkeypatch.setitem(FILTERS, "image_validity", Slow)
    alone = run(monkeypatch)
    store = project / "ckpt"
    profile = json.dumps({"data_workers": number})
    env = {**os.environ, "PYTHONPATH": str(ROOT), "STOCKPOT_CKPT": str(store), "STOCKPOT_UNIT_PROFILE": profile}
    step = subprocess.Popen([sys.executable, "-m", "tests.components.curation.slow_step"], env=env, cwd=project)
    until(lambda: len(list(store.rglob("rows-*"))) >= 3, seconds=60)
    below = psutil.Process(step.pid).children(recursive=True)
    step.send_signal(signal.SIGKILL)
    step.wait()
    until(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in below), seconds=20)
    done = {path.name for path in store.rglob("rows-*")}
    assert 3 <= len(done) < 9
    Path("looked.txt").unlink()
    monkeypatch.setenv("STOCKPOT_CKPT", str(store))
    assert run(monkeypatch, data_workers=number) == alone
    sizes = [5] * 6 + [4] * 3
    assert len(looked()) == len(set(looked())) == sum(size for n, size in enumerate(sizes) if f"rows-{n:05d}" not in done)
    Path("looked.txt").unlink()
    assert run(monkeypatch, data_workers=number) == alone
    assert not looked()


@pytest.mark.parametrize("profile", [{}, POOL, RAY], ids=["here", "pool", "ray"])
def test_a_damaged_shard_is_named(project, profile):
    (project / "part-00000.parquet").write_bytes(b"PAR1")
    shown = {0: (project / "part-00000.parquet", "a")}
    with pytest.raises(DataError, match=r"part-00000\.parquet: not a readable Parquet shard"):
        list(find(shown, [FILTERS["image_validity"](ImageValidity(), Step("curate", {}))], Profile(**profile)))


def test_a_ray_cluster_that_does_not_answer_is_named(project, monkeypatch):
    with pytest.raises((TransientError, SetupError), match=r"ray_address: 127.0.0.1:9"):
        run(monkeypatch, data_engine="ray", ray_address="127.0.0.1:9")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a Ray cluster of one node that somebody else has started, with a token: it sees neither this project nor its folders."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "5" * 64)
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as home, socket.socket() as free:  # Ray's sockets need a short path
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        node = [Path(sys.executable).with_name("ray"), "start", "--head", "--block", f"--port={port}", f"--temp-dir={home}"]
        options = ["--node-ip-address=127.0.0.1", "--num-cpus=2", "--include-dashboard=false", "--disable-usage-stats", f"--object-store-memory={2**27}"]
        log = Path(home, "node.log")
        with log.open("w") as out:
            process = subprocess.Popen([*node, *options], cwd=home, stdout=out, stderr=out, env={**os.environ, "PYTHONPATH": ""}, start_new_session=True)
        try:
            until(lambda: "Ray runtime started" in log.read_text(), seconds=60, said=log.read_text)
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()


@pytest.mark.slow
def test_a_cluster_that_runs_already_gets_code_and_shards_and_finds_the_same(project, monkeypatch, cluster):
    here = run(monkeypatch)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "STOCKPOT_UNIT_PROFILE": json.dumps({"data_engine": "ray", "ray_address": cluster})}
    command = [sys.executable, "-m", "components.steps", "curate"]  # a process of its own: Ray remembers the token of the first cluster that it meets
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert written() == here


def test_a_damaged_fact_is_found_again(tmp_path):
    store, table = FactStore(str(tmp_path)), pa.table({"0": [1, 2]})
    assert store.get("rows-00000") is None
    store.put("rows-00000", table)
    assert store.get("rows-00000") == table
    file = tmp_path / "facts/rows-00000"
    file.write_bytes(file.read_bytes()[:-1])
    assert store.get("rows-00000") is None
    store.put("rows-00000", table)
    assert store.get("rows-00000") == table


def test_without_a_place_nothing_is_kept(monkeypatch):
    monkeypatch.delenv("STOCKPOT_CKPT", raising=False)
    store = FactStore()
    store.put("rows-00000", pa.table({"0": [1]}))
    assert store.get("rows-00000") is None
