"""The whole chain over a real S3 server: what one machine has finished, a fresh clone takes from the remote."""

import shutil
from pathlib import Path

import pytest

from tests.conftest import Ended, Project, make_project
from tests.s3_server import S3Server

pytestmark = pytest.mark.slow


def test_a_fresh_clone_with_an_empty_cache_reuses_the_whole_chain_from_s3(finished: tuple[Project, Ended], tmp_path: Path, s3_server: S3Server) -> None:
    bucket = s3_server.new_bucket()
    env = {**finished[0].environment, **s3_server.env()}
    first = Project(finished[0].copy(tmp_path / "first").root, env)
    first.dvc("remote", "add", "-d", "team", f"s3://{bucket}/stockpot")
    again = first.stockpot("run", "micro", "--json")  # nothing to do, but to publish
    assert again.code == 0, again.err
    assert set(again.states.values()) == {"reused"}

    clone = make_project(tmp_path / "clone", env | {"STOCKPOT_STORE": f"s3://{bucket}/store"})
    clone.dvc("remote", "add", "-d", "team", f"s3://{bucket}/stockpot")
    ended = clone.stockpot("run", "micro", "--use", "--json")
    assert ended.code == 0, ended.err
    assert {name for name, state in ended.states.items() if state == "ran"} == {"promote"}  # the clone's registry was empty
    assert ended.line["scores"] == again.line["scores"]
    assert (clone.root / "dvc.lock").read_text() == (first.root / "dvc.lock").read_text()
    log = s3_server.client().list_objects_v2(Bucket=bucket, Prefix="store/")["Contents"]
    assert [o["Key"] for o in log] == ["store/promotions/micro/00000000.json"]

    assert "up to date" in clone.dvc("status")
    for folder in (".dvc/cache", "out"):
        shutil.rmtree(clone.root / folder)
    clone.dvc("pull")
    assert "up to date" in clone.dvc("status")
    assert (clone.root / "out/evaluate/scores.json").is_file()
