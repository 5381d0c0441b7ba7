"""What a user can get wrong: one sentence with file, row or key and the remedy; no traceback; the exit code says whose turn it is."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.conftest import BIN, Ended, Project, make_project
from tests.s3_server import S3Server


@pytest.fixture
def checkout(tmp_path: Path) -> Project:
    return make_project(tmp_path / "checkout", {})


def assert_one_sentence(ended: Ended, code: int, *words: str) -> None:
    assert ended.code == code, ended.err
    assert "Traceback" not in ended.err + ended.out
    for word in words:
        assert word in ended.err, ended.err


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("stages.instruct.lrr=1", ("micro.yaml", "stages.instruct.lrr", "did you mean lr?")),
        ("seed=many", ("micro.yaml", "seed", "valid integer", "'many'")),
        ("stages.instruct.init_from=nowhere", ("micro.yaml", "stages.instruct.init_from", "not an earlier stage")),
    ],
)
def test_a_wrong_key_value_or_parent(checkout: Project, override: str, words: tuple[str, ...]) -> None:
    assert_one_sentence(checkout.stockpot("run", "micro", "--set", override), 2, *words)


def test_a_recipe_that_does_not_exist(checkout: Project) -> None:
    assert_one_sentence(checkout.stockpot("run", "micrro"), 2, "no such recipe", "did you mean micro?")


def test_a_broken_yaml(checkout: Project) -> None:
    (checkout.root / "recipes/broken.yaml").write_text("name: [broken\n")
    assert_one_sentence(checkout.stockpot("run", "broken"), 2, "broken.yaml:2:1", "not valid YAML")


def test_a_source_file_that_is_not_there(checkout: Project) -> None:
    ended = checkout.stockpot("run", "micro", "--set", "sources.captions.path=data/mine.json")
    assert_one_sentence(ended, 2, "data/mine.json", "no such file", "sources")


def test_an_mlflow_server_that_does_not_answer_is_found_before_any_work(checkout: Project) -> None:
    ended = checkout.stockpot("run", "micro", MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert_one_sentence(ended, 2, "http://127.0.0.1:9", "MLflow")
    assert not list((checkout.root / ".stockpot").rglob("unit.json"))


@pytest.mark.parametrize(
    ("place", "fault", "code", "words"),
    [
        ("remote", "key", 2, ("the access key is unknown there", "check the credentials")),
        ("remote", "dead", 75, ("no answer from http://127.0.0.1:9", "try again later")),
        ("store", "bucket", 2, ("there is no such bucket", "create it")),
    ],
)
def test_an_s3_that_can_not_be_used_is_found_before_any_work(
    checkout: Project, s3_server: S3Server, place: str, fault: str, code: int, words: tuple[str, ...]
) -> None:
    env = {"key": s3_server.env(("AKIANOBODY", "x")), "dead": s3_server.env(endpoint="http://127.0.0.1:9")}.get(fault, s3_server.env())
    url = f"s3://{'never-made' if fault == 'bucket' else s3_server.new_bucket()}/p"
    if place == "remote":
        checkout.dvc("remote", "add", "-d", "team", url)
    else:
        env["STOCKPOT_STORE"] = url
    ended = checkout.stockpot("run", "micro", **env)
    assert_one_sentence(ended, code, "DVC remote team" if place == "remote" else "STOCKPOT_STORE", url, *words)
    assert ended.err.count("\n") == 1
    assert not list((checkout.root / ".stockpot").rglob("unit.json"))


def test_doctor_asks_remote_and_store(checkout: Project, s3_server: S3Server) -> None:
    checkout.dvc("remote", "add", "-d", "team", f"s3://{s3_server.new_bucket()}/p")
    ended = checkout.stockpot("doctor", "--json", STOCKPOT_STORE="s3://never-made/p", **s3_server.env())
    found = {check["check"]: check for check in ended.line}
    assert ended.code == 2
    assert found["remote"]["ok"]
    assert not found["store"]["ok"]
    assert "there is no such bucket" in found["store"]["says"]


def test_a_folder_that_is_no_project(tmp_path: Path, checkout: Project) -> None:
    shutil.rmtree(checkout.root / ".dvc")
    assert_one_sentence(checkout.stockpot("run", "micro"), 2, "not a DVC project", "dvc init")


def test_a_profile_that_does_not_exist(checkout: Project) -> None:
    assert_one_sentence(checkout.stockpot("run", "micro", STOCKPOT_PROFILE="cluster"), 2, "no such runtime profile", "laptop")


def test_debug_shows_the_traceback(checkout: Project) -> None:
    ended = checkout.stockpot("--debug", "run", "micrro")
    assert "Traceback" in ended.err


def test_a_step_by_hand_in_the_wrong_place(tmp_path: Path) -> None:
    done = subprocess.run([str(BIN / "stockpot"), "step", "draw"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "stockpot use" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_bad_rows_are_quarantined_with_a_reason_and_the_steps_go_on(fresh: Project) -> None:
    """A user's own corpus: a missing picture, a truncated JPEG, a row without an answer."""
    assert fresh.stockpot("use", "micro").code == 0
    fresh.dvc("repro", "draw")
    mine = fresh.root / "data/mine"
    shutil.copytree(fresh.root / "out/draw/data/images", mine / "images")
    rows = [r for r in json.loads((fresh.root / "out/draw/data/captions.json").read_text()) if (mine / "images" / Path(r["image"]).name).exists()][:80]
    good = {**rows[0], "image": Path(rows[0]["image"]).name}
    Image.open(mine / "images" / good["image"]).convert("RGB").save(mine / "images/cut.jpg")
    os.truncate(mine / "images/cut.jpg", 400)
    bad = [
        {**good, "id": "no-picture", "image": "nowhere.png"},
        {**good, "id": "cut-off", "image": "cut.jpg"},
        {**good, "id": "no-answer", "conversations": good["conversations"][:1]},
    ]
    rows = [{**r, "image": Path(r["image"]).name} for r in rows]
    (mine / "captions.json").write_text(json.dumps(rows + bad))
    own = ("--set", "sources.captions.path=data/mine/captions.json", "--set", "sources.captions.images=data/mine/images")
    assert fresh.stockpot("use", "micro", *own).code == 0
    fresh.dvc("repro", "curate")
    table = pq.read_table(fresh.root / "out/curate/data/quarantine.parquet").to_pylist()
    found = {r["id"]: r for r in table if r["source"] == "captions"}
    assert {"no-picture", "cut-off", "no-answer"} <= set(found)
    assert all(r["file"] and r["row"] > 0 and r["reason"] and r["detail"] for r in found.values())
    assert {found[n]["file"] for n in ("no-picture", "cut-off", "no-answer")} == {"data/mine/captions.json"}
    counts = json.loads((fresh.root / "out/curate/counts.json").read_text())
    assert counts["rows_kept"] > 100
    assert sum(counts["by_reason"].values()) >= len(found)


@pytest.mark.slow
def test_a_full_disk_is_named_and_what_was_finished_is_kept(project: Project) -> None:
    home, overrides = project.root / ".stockpot", ("--set", "stages.instruct.lr=3e-3")
    full = f"mount -t tmpfs -o size=2500k none {home} && exec {BIN / 'stockpot'} run micro --json {' '.join(overrides)}"
    probe = subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip("needs unprivileged mount namespaces (unshare -rm)")
    done = subprocess.run(["unshare", "-rm", "sh", "-c", full], cwd=project.root, env=project.env(), capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "the disk is full" in done.stderr
    assert "Traceback" not in done.stderr
    after = project.stockpot("run", "micro", "--json", *overrides)
    assert after.code == 0, after.err
    assert after.states["projector"] == "reused"


@pytest.mark.slow
def test_a_step_that_fails_stops_what_follows_and_keeps_what_is_finished(project: Project) -> None:
    ended = project.stockpot("run", "micro", "--json", "--set", "curation.max_quarantine_percent=0")
    assert_one_sentence(ended, 2, "curate", "max_quarantine_percent")
    states = ended.states
    assert states["llm"] == "reused"
    assert {states[n] for n in ("curate", "vision", "soup", "package")} == {"failed"}
    assert ended.line["registry"] is None
