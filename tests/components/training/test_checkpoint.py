import logging
from pathlib import Path

import boto3
import pytest
from moto import mock_aws

from components.training.checkpoint import Checkpoints


def files(folder: Path, text: str) -> Path:
    (folder / "engine").mkdir(parents=True, exist_ok=True)
    (folder / "engine" / "model.pt").write_text(text)
    (folder / "state.json").write_text("{}")
    return folder


def empty(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_the_newest_checkpoint_comes_back_whole(tmp_path: Path) -> None:
    checkpoints = Checkpoints(str(tmp_path / "store"))
    assert checkpoints.load(empty(tmp_path / "none")) is None
    for step in (9, 10):
        checkpoints.save(step, files(tmp_path / "work", f"weights {step}"))
    into = empty(tmp_path / "into")
    assert checkpoints.load(into) == 10
    assert (into / "engine" / "model.pt").read_text() == "weights 10"


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(str(tmp_path / "store"))
    for step in (1, 5, 20):
        checkpoints.save(step, files(tmp_path / "work", f"weights {step}"))
    assert checkpoints.steps() == [20, 5]
    assert sorted(p.name for p in (tmp_path / "store").iterdir()) == ["step-20", "step-5"]


@pytest.mark.parametrize("damage", ["cut", "flip", "gone", "manifest"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before_and_that_is_said(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    checkpoints = Checkpoints(str(tmp_path / "store"))
    for step in (1, 2):
        checkpoints.save(step, files(tmp_path / "work", f"weights {step}"))
    file = tmp_path / "store" / "step-2" / ("manifest.json" if damage == "manifest" else "engine/model.pt")
    if damage == "gone":
        file.unlink()
    else:
        file.write_text({"cut": "weig", "flip": "weights 3", "manifest": '{"files": 3}'}[damage])
    into = empty(tmp_path / "into")
    with caplog.at_level(logging.WARNING):
        assert checkpoints.load(into) == 1
    assert (into / "engine" / "model.pt").read_text() == "weights 1"
    assert "step-2 is damaged" in caplog.text
    assert "going back to the one before" in caplog.text


def test_files_without_a_manifest_are_no_checkpoint_and_do_not_stand_in_the_way(tmp_path: Path) -> None:
    files(tmp_path / "store" / "step-7", "half of an upload that was killed")
    checkpoints = Checkpoints(str(tmp_path / "store"))
    assert checkpoints.load(empty(tmp_path / "none")) is None
    checkpoints.save(7, files(tmp_path / "work", "weights 7"))
    into = empty(tmp_path / "into")
    assert checkpoints.load(into) == 7
    assert (into / "engine" / "model.pt").read_text() == "weights 7"


def test_checkpoints_can_live_in_a_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(key, value)
    with mock_aws():
        boto3.Session().client("s3").create_bucket(Bucket="runs")
        uri = "s3://runs/ckpt/abc"
        Checkpoints(uri).save(3, files(tmp_path / "work", "weights 3"))
        into = empty(tmp_path / "into")
        assert Checkpoints(uri).load(into) == 3
        assert (into / "engine" / "model.pt").read_text() == "weights 3"
