import json
import logging
import shutil
from pathlib import Path

import pytest
import torch

from components import steps
from components.errors import DataError, PermanentError, RecipeError
from components.models.checkpoint import load_model
from tests.components.training.corpus import losses, row, weights, write_project

TOWER_NORMS = ["norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"]
TOWER = [
    "vision.patch_embed.proj.weight",
    *(f"vision.blocks.0.{n}" for n in [*TOWER_NORMS, *(f"{m}.{w}" for m in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2") for w in ("weight", "bias"))]),
]
CONNECTOR = [f"connector.{m}.{w}" for m in ("ln_q", "mlp.0", "mlp.2") for w in ("weight", "bias")]
LLM = [
    "llm.model.embed_tokens.weight",
    "llm.model.norm.weight",
    *(f"llm.model.layers.0.self_attn.{p}_proj.{w}" for p in "qkv" for w in ("weight", "bias")),
    "llm.model.layers.0.self_attn.o_proj.weight",
    *(f"llm.model.layers.0.{n}.weight" for n in ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj", "input_layernorm", "post_attention_layernorm")),
]


def changed(before: Path, after: Path) -> list[str]:
    old, new = weights(before), weights(after)
    assert old.keys() == new.keys()
    assert all(t.dtype == torch.float32 for t in new.values())
    return sorted(name for name in old if not torch.equal(old[name], new[name]))


@pytest.fixture
def workspace(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(project, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_stage_changes_exactly_the_parameters_that_it_trains(workspace: Path) -> None:
    steps.run("instruct-b")
    out = workspace / "out"
    assert changed(out / "llm/data", out / "vision/data") == sorted(TOWER + CONNECTOR + LLM)
    assert changed(out / "vision/data", out / "projector/data") == sorted(CONNECTOR)
    assert changed(out / "projector/data", out / "instruct-b/data") == sorted(CONNECTOR + LLM)


def test_the_first_stage_trains_the_llm_from_the_seeds_random_weights(workspace: Path) -> None:
    trained = weights(workspace / "out/llm/data")
    write_project(workspace, overrides=["stages.llm.lr=1e-30"])
    steps.run("llm")
    assert sorted(n for n, t in weights(workspace / "out/llm/data").items() if not torch.equal(t, trained[n])) == sorted(LLM)


def test_outputs_are_a_model_folder_a_loss_curve_and_a_summary(workspace: Path) -> None:
    out = workspace / "out/projector"
    model, processor = load_model(out / "data")
    assert not model.training
    assert processor.num_image_tokens(32, 32) == 4
    summary = json.loads((out / "summary.json").read_text())
    curve = losses(workspace, "projector")
    assert summary["steps"] == len(curve) == 6
    assert summary["samples"] == 48
    assert summary["tokens"] > 48 * 10
    assert summary["first_loss"] == pytest.approx(curve[0], rel=1e-8)
    assert summary["final_loss"] == pytest.approx(curve[-1], rel=1e-8)
    assert summary["left_out"] == 0
    assert summary["runtime"] == {"processes": 1, "zero_stage": 0, "precision": "fp32", "threads": 1}
    assert (out / "loss.csv").read_text().splitlines()[0] == "step,loss,lr"
    assert sorted(p.name for p in out.iterdir()) == ["data", "loss.csv", "summary.json"]


def test_training_learns(workspace: Path) -> None:
    curve = losses(workspace, "vision")
    assert curve[-1] < curve[0] - 0.3


def test_the_same_step_gives_the_same_bytes(workspace: Path) -> None:
    before = {p.name: p.read_bytes() for p in sorted(Path("out/projector").rglob("*")) if p.is_file()}
    steps.run("projector")
    assert {p.name: p.read_bytes() for p in sorted(Path("out/projector").rglob("*")) if p.is_file()} == before


def test_candidates_see_their_own_share_of_the_rows_for_their_own_time(workspace: Path) -> None:
    steps.run("instruct-a")
    steps.run("instruct-b")
    assert (len(losses(workspace, "instruct-a")), len(losses(workspace, "instruct-b"))) == (8, 6)
    assert losses(workspace, "instruct-a")[0] != losses(workspace, "instruct-b")[0]


def test_rows_that_are_too_long_are_left_out_counted_and_named(workspace: Path, caplog: pytest.LogCaptureFixture) -> None:
    long = row("question-huge", "questions", [("What color is it?", "red " * 400)], None)
    write_project(workspace, overrides=["stages.instruct.data={sources: [questions]}"], extra=[long])
    with caplog.at_level(logging.WARNING):
        steps.run("instruct-b")
    assert "question-huge" in caplog.text
    summary = json.loads(Path("out/instruct-b/summary.json").read_text())
    assert (summary["left_out"], summary["left_out_rows"]) == (1, ["question-huge"])


def test_a_loss_that_is_not_a_number_stops_the_run_and_leaves_no_weights(workspace: Path) -> None:
    write_project(workspace, overrides=["stages.projector.lr=1e30", "stages.projector.optimizer={clip: 1e30}"])
    with pytest.raises(PermanentError, match=r"projector: the loss is (nan|inf) at step [2-6] of 6: lower the learning rate"):
        steps.run("projector")
    assert not list(Path("out/projector").rglob("*.safetensors"))


def test_weights_that_break_in_the_last_step_are_not_written(workspace: Path) -> None:
    write_project(workspace, overrides=["stages.projector.lr=1e39", "stages.projector.schedule={steps: 1}", "stages.projector.weight_decay=1"])
    with pytest.raises(PermanentError, match=r"projector: connector\.\S+ is not finite after training"):
        steps.run("projector")
    assert not list(Path("out/projector").rglob("*.safetensors"))


def test_a_row_with_a_broken_picture_is_named(workspace: Path) -> None:
    bad = row("question-bad", "questions", [("What color is it?", "red")], b"not a picture")
    write_project(workspace, overrides=["stages.instruct.data={sources: [questions]}"], extra=[bad])
    with pytest.raises(DataError, match=r"question-bad.*image_validity"):
        steps.run("instruct-b")


def test_a_damaged_parent_model_is_named(workspace: Path) -> None:
    Path("out/vision/data/model.safetensors").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"out/vision/data/model\.safetensors"):
        steps.run("projector")


def test_a_stage_without_rows_says_where_to_look(workspace: Path) -> None:
    write_project(workspace, number=0)
    with pytest.raises(DataError, match=r"no rows are left for this stage.*data\.percent"):
        steps.run("projector")


def test_a_profile_that_does_not_parse_is_the_users_to_mend(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOCKPOT_UNIT_PROFILE", '{"zero_stage": 7}')
    with pytest.raises(RecipeError, match=r"STOCKPOT_UNIT_PROFILE.*zero_stage"):
        steps.run("projector")
