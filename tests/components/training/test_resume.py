import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from components import steps
from components.errors import TransientError
from components.profile import Profile
from components.training.checkpoint import Checkpoints
from tests.components.training.corpus import losses, write_project
from tests.s3_server import S3Server

ROOT = Path(__file__).parents[3]
NAME, STEPS = "instruct-b", 80


@pytest.fixture
def workspace(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ready for a candidate of 80 steps, which is ten epochs of its rows, varied, and two seconds of work; some rows are held out."""
    shutil.copytree(project, tmp_path / "project")
    varied = "data: {augment: {copies: 2}}"
    write_project(tmp_path / "project", overrides=[f"stages.instruct.candidates.b={{schedule: {{steps: {STEPS}}}, {varied}}}", "held_out={selection: 10}"])
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def outputs() -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(Path("out", NAME).rglob("*")) if p.is_file()}


def use(monkeypatch: pytest.MonkeyPatch, checkpoints: Path | str, **profile: object) -> Checkpoints:
    monkeypatch.setenv("STOCKPOT_CKPT", str(checkpoints))
    monkeypatch.setenv("STOCKPOT_UNIT_PROFILE", Profile.model_validate({"checkpoint_seconds": 0.01, **profile}).model_dump_json())
    return Checkpoints(str(checkpoints))


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where checkpoints go: a folder, or a bucket of a real server."""
    if request.param == "folder":
        return str(tmp_path / "ckpt")
    server: S3Server = request.getfixturevalue("s3_server")
    for name, value in server.env().items():
        monkeypatch.setenv(name, value)
    return f"s3://{server.new_bucket()}/ckpt"


def test_a_run_killed_in_the_middle_goes_on_bit_identically(
    workspace: Path, store: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    steps.run(NAME)
    unbroken = outputs()
    checkpoints = use(monkeypatch, store)
    killed = subprocess.Popen([sys.executable, "-m", "components.steps", NAME], env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})
    while (checkpoints.steps() or [0])[0] < 5 and killed.poll() is None:
        time.sleep(0.005)
    killed.kill()
    assert killed.wait() == -signal.SIGKILL
    assert not Path("out", NAME, "summary.json").exists()
    with caplog.at_level(logging.INFO):
        steps.run(NAME)
    (said,) = [r.getMessage() for r in caplog.records if "going on after step" in r.getMessage()]
    assert 5 <= int(said.split()[-3]) < STEPS
    assert outputs() == unbroken


def test_a_damaged_newest_checkpoint_costs_some_steps_and_nothing_else(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    steps.run(NAME)
    unbroken = outputs()
    checkpoints = use(monkeypatch, tmp_path / "ckpt", checkpoint_seconds=0.1)
    steps.run(NAME)
    newest, before = checkpoints.steps()
    largest = max((tmp_path / "ckpt" / f"step-{newest}").rglob("*.pt"), key=lambda p: p.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-1] + b"?")
    with caplog.at_level(logging.INFO):
        steps.run(NAME)
    assert f"step-{newest} is damaged" in caplog.text
    assert f"{NAME}: going on after step {before} of {STEPS}" in caplog.text
    assert outputs() == unbroken


@pytest.mark.parametrize("workers", [0, 2])
def test_sigterm_saves_the_step_and_asks_to_be_tried_again(workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    steps.run(NAME)
    unbroken = outputs()
    checkpoints = use(monkeypatch, tmp_path / "ckpt", checkpoint_seconds=1000, loader_workers=workers)
    (tmp_path / "unit").mkdir()
    monkeypatch.setenv("STOCKPOT_UNIT", str(tmp_path / "unit"))

    def stop_once_it_trains() -> None:
        while not Path(tmp_path, "unit", "metrics.jsonl").exists():
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    stopper = threading.Thread(target=stop_once_it_trains)
    stopper.start()
    with pytest.raises(TransientError, match=rf"^{NAME}: stopped, step \d+ saved$"):
        steps.run(NAME)
    stopper.join()
    assert signal.getsignal(signal.SIGTERM) == before
    assert len(checkpoints.steps()) == 1
    steps.run(NAME)
    assert outputs() == unbroken


def test_a_signal_to_the_whole_process_group_leaves_the_trainer_its_workers_until_it_has_saved(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps.run(NAME)
    unbroken = outputs()
    checkpoints = use(monkeypatch, tmp_path / "ckpt", checkpoint_seconds=0.3, loader_workers=2)
    command = [sys.executable, "-m", "components.steps", NAME]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    stopped = subprocess.Popen(command, env=environment, start_new_session=True, stderr=subprocess.PIPE, text=True)
    while not checkpoints.steps() and stopped.poll() is None:
        time.sleep(0.005)
    everybody = [psutil.Process(stopped.pid), *psutil.Process(stopped.pid).children(recursive=True)]
    os.killpg(stopped.pid, signal.SIGTERM)
    _, said = stopped.communicate(timeout=120)
    assert stopped.returncode == 75, said
    assert f"step {checkpoints.steps()[0]} saved" in said
    assert len(everybody) >= 3
    assert not psutil.wait_procs(everybody, timeout=20)[1]
    steps.run(NAME)
    assert outputs() == unbroken


@pytest.mark.parametrize("change", [{"zero_stage": 1}, {"precision": "bf16"}])
def test_another_layout_starts_from_the_beginning_and_says_so(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, change: dict[str, object]
) -> None:
    use(monkeypatch, tmp_path / "ckpt", checkpoint_seconds=0.1)
    steps.run(NAME)
    first = losses(workspace, NAME)
    use(monkeypatch, tmp_path / "ckpt", checkpoint_seconds=1000, **change)
    with caplog.at_level(logging.WARNING):
        steps.run(NAME)
    assert "starting from the beginning" in caplog.text
    assert len(losses(workspace, NAME)) == STEPS
    assert losses(workspace, NAME) == pytest.approx(first, rel=0.05)
    assert losses(workspace, NAME) != first


def test_bf16_trains_float32_masters_and_leaves_frozen_weights_alone(workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.components.training.corpus import weights

    use(monkeypatch, tmp_path / "ckpt", precision="bf16", checkpoint_seconds=0.2)
    steps.run(NAME)
    start, end = weights(workspace / "out/projector/data"), weights(workspace / "out" / NAME / "data")
    assert all((start[n] == end[n]).all() for n in start if n.startswith("vision."))
    trained = end["connector.mlp.0.weight"]
    assert (trained != trained.bfloat16().float()).any()
    once = outputs()
    shutil.rmtree(tmp_path / "ckpt" / f"step-{Checkpoints(str(tmp_path / 'ckpt')).steps()[0]}")
    steps.run(NAME)  # from the checkpoint before
    assert outputs() == once


def test_progress_is_a_curve_with_rates(workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOCKPOT_UNIT", str(tmp_path))
    steps.run(NAME)
    lines = [json.loads(line) for line in Path(tmp_path, "metrics.jsonl").read_text().splitlines()]
    assert (lines[0]["done"], lines[-1]["done"], lines[-1]["total"]) == (1, STEPS, STEPS)
    assert len(lines) >= 40
    curve = losses(workspace, NAME)
    assert all(line["loss"] == pytest.approx(curve[line["done"] - 1]) for line in lines)
    assert all(
        line["lr"] > 0 and line["samples_per_second"] > 0 and line["tokens_per_second"] > line["samples_per_second"] and 0 <= line["data_wait"] < 1
        for line in lines
    )
    assert lines[-1]["eta_seconds"] == 0 < lines[0]["eta_seconds"]
