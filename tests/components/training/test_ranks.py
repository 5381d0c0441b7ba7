import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from components.errors import DataError
from components.pipeline.closure import code_of
from components.profile import Profile
from components.training.checkpoint import Checkpoints
from components.training.launch import run_workers
from tests.components.training.corpus import losses, row, write_project

ROOT = Path(__file__).parents[3]
STAGES = ["0", "1", "2", "3"]
# Rows without pictures, and rows of very different length: some micro-batches, and some ranks, see no picture at all.
BLIND = [row(f"text-{i}", "questions", [("How many shapes are there?", "two")] * (1 + i % 3), None) for i in range(60)]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def rank_program(workspace: Path, num_ranks: int, out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={num_ranks}", "-m", "tests.components.training.rank"]
    return subprocess.Popen([*command, "instruct-b", str(out), *STAGES], cwd=workspace, env=environment())


@pytest.fixture(scope="module")
def runs(project: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What every rank saw, by `zeroSTAGE-ofRANKS-rankRANK`: one process and two, all ZeRO stages."""
    workspace = tmp_path_factory.mktemp("ranks") / "project"
    shutil.copytree(project, workspace)
    write_project(workspace, extra=BLIND)
    out = tmp_path_factory.mktemp("seen")
    for num_ranks in (1, 2):
        assert rank_program(workspace, num_ranks, out).wait(300) == 0
    return {p.stem: {**json.loads(p.read_text()), "weights": load_file(p.with_suffix(".safetensors"))} for p in out.glob("*.json")}


@pytest.mark.parametrize("stage", STAGES)
def test_two_ranks_have_the_losses_of_one_under_every_zero_stage(runs: dict[str, Any], stage: str) -> None:
    alone = runs["zero0-of1-rank0"]["losses"]
    for run in (f"zero{stage}-of1-rank0", f"zero{stage}-of2-rank0", f"zero{stage}-of2-rank1"):
        assert runs[run]["losses"] == pytest.approx(alone, rel=1e-5)


@pytest.mark.parametrize("stage", STAGES)
def test_two_ranks_end_with_the_whole_weights_of_one(runs: dict[str, Any], stage: str) -> None:
    alone = runs["zero0-of1-rank0"]["weights"]
    for run in (f"zero{stage}-of1-rank0", f"zero{stage}-of2-rank0", f"zero{stage}-of2-rank1"):
        weights = runs[run]["weights"]
        assert weights.keys() == alone.keys()
        assert all(torch.allclose(weights[name], alone[name], atol=1e-4) for name in alone), run


def test_the_ranks_of_these_tests_really_go_without_pictures_at_times(runs: dict[str, Any]) -> None:
    assert runs["zero2-of2-rank0"]["blind_micro_batches"] + runs["zero2-of2-rank1"]["blind_micro_batches"] > 0


@pytest.mark.parametrize("stage", ["1", "2", "3"])
def test_zero_on_two_processes_keeps_half_of_the_optimizer_bytes_per_rank(runs: dict[str, Any], stage: str) -> None:
    alone = runs[f"zero{stage}-of1-rank0"]["optimizer_bytes"]
    assert alone == pytest.approx(runs["zero0-of1-rank0"]["optimizer_bytes"], rel=0.01)
    assert 0 < max(runs[f"zero{stage}-of2-rank{r}"]["optimizer_bytes"] for r in (0, 1)) <= 0.55 * alone


def test_the_worker_is_part_of_a_training_steps_code() -> None:
    assert "components/training/worker.py" in code_of("projector")


def test_the_error_of_a_rank_comes_back_as_its_sentence(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(project, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    Path("out/vision/data/model.safetensors").write_bytes(b"broken")
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(DataError, match=r"^out/vision/data/model\.safetensors: [^\n]*$"):
        run_workers("projector", Profile(processes=2))
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.slow
def test_two_processes_stop_on_sigterm_save_and_go_on_bit_identically(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(project, tmp_path, dirs_exist_ok=True)
    write_project(tmp_path, overrides=["stages.projector.schedule={steps: 200}"])
    monkeypatch.chdir(tmp_path)
    profile = Profile(processes=2, zero_stage=2, checkpoint_seconds=0.2)
    runtime = {**environment(), "STOCKPOT_UNIT_PROFILE": profile.model_dump_json()}
    command = [sys.executable, "-m", "components.steps", "projector"]
    assert subprocess.run(command, env=runtime, check=False, timeout=300).returncode == 0
    unbroken = Path("out/projector/data/model.safetensors").read_bytes(), losses(tmp_path, "projector")

    runtime["STOCKPOT_CKPT"] = str(tmp_path / "ckpt")
    stopped = subprocess.Popen(command, env=runtime, stderr=subprocess.PIPE, text=True)
    checkpoints = Checkpoints(runtime["STOCKPOT_CKPT"])
    while not checkpoints.steps() and stopped.poll() is None:
        time.sleep(0.02)
    stopped.send_signal(signal.SIGTERM)
    _, said = stopped.communicate(timeout=120)
    assert stopped.returncode == 75
    saved = checkpoints.steps()[0]
    assert 0 < saved < 200
    assert f"projector: stopped, step {saved} saved" in said
    assert not Path("out/projector/summary.json").exists()

    again = subprocess.run(command, env=runtime, check=False, timeout=300, stderr=subprocess.PIPE, text=True)
    assert again.returncode == 0
    assert f"going on after step {saved} of 200" in again.stderr
    assert losses(tmp_path, "projector") == unbroken[1]
    assert Path("out/projector/data/model.safetensors").read_bytes() == unbroken[0]
