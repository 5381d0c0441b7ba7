"""A unit that travels: run from its bundle in an empty directory, with the code, the store and the DVC remote and nothing else."""

import ctypes
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from moto.server import ThreadedMotoServer

from components.errors import TransientError
from components.pipeline import bundle as bundles
from components.pipeline.execute import Pipeline
from components.pipeline.wire import end_line, end_of, heard
from components.storage import open_storage
from tests.components.pipeline.test_unit import wait_for, wait_for_end
from tests.components.pipeline.toy import make_image, make_project, open_pipeline, times_run

PR_SET_CHILD_SUBREAPER = 36


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "scratch").mkdir()
    monkeypatch.setenv("TOY_SCRATCH", str(tmp_path / "scratch"))
    return tmp_path / "scratch"


@pytest.fixture
def pipeline(tmp_path: Path, scratch: Path) -> Pipeline:
    return open_pipeline(make_project(tmp_path / "project", tmp_path / "remote"))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return make_image(tmp_path / "image")


def first_process() -> None:
    """Orphans come to it, as to the first process of a container."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


class Pod:
    """`python -m components.pipeline.unit` with an environment of its own, in an empty directory."""

    def __init__(self, tmp_path: Path, image: Path, uri: str, **environment: str) -> None:
        place = tmp_path / f"pod-{len(list(tmp_path.glob('pod-*')))}"
        place.mkdir()
        env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(image), "TOY_SCRATCH": str(tmp_path / "scratch"), "STOCKPOT_REMOTE": str(tmp_path / "remote")}
        command = [sys.executable, "-m", "components.pipeline.unit", uri]
        self.process = subprocess.Popen(
            command, cwd=place, env={**env, "STOCKPOT_GRACE": "3", **environment}, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, preexec_fn=first_process,  # noqa: PLW1509
        )  # fmt: skip

    def end(self) -> tuple[int, str]:
        out, _ = self.process.communicate(timeout=120)
        return self.process.returncode, out


@pytest.fixture
def pod(tmp_path: Path, image: Path, scratch: Path) -> Callable[..., Pod]:
    def start(uri: str, **environment: str) -> Pod:
        return Pod(tmp_path, image, uri, **environment)

    return start


def submit(pipeline: Pipeline, name: str = "ingest-web", upstream: dict[str, Any] | None = None) -> str:
    return bundles.put(pipeline.store, pipeline.plan.units[name].bundle(upstream or {}))


def test_a_unit_runs_from_its_bundle_alone_and_the_flow_finds_its_record(pipeline: Pipeline, pod: Callable[..., Pod], scratch: Path) -> None:
    code, log = pod(submit(pipeline)).end()
    assert code == 0, log
    assert end_of(log) == {"code": 0, "error": "", "message": ""}
    done = pipeline.ensure("ingest-web", {}, lambda _: None)
    assert done.reused
    code, log = pod(submit(pipeline, "tune-a", {"ingest-web": done.record})).end()  # reads what the other pod made, by hash
    assert code == 0, log
    assert pipeline.ensure("tune-a", {"ingest-web": done.record}, lambda _: None).reused
    assert times_run(scratch, "tune-a") == 1


def test_it_makes_what_the_local_run_makes(pipeline: Pipeline, pod: Callable[..., Pod], tmp_path: Path) -> None:
    assert pod(submit(pipeline)).end()[0] == 0
    alone = open_pipeline(make_project(tmp_path / "other"))
    assert pipeline.ensure("ingest-web", {}, lambda _: None).record == alone.ensure("ingest-web", {}, lambda _: None).record


def test_a_bundle_is_stored_once_and_the_same_bytes_for_the_same_unit(pipeline: Pipeline, tmp_path: Path, scratch: Path) -> None:
    uri = submit(pipeline)
    before = Path(uri).stat()
    other = open_pipeline(make_project(tmp_path / "other"))
    assert other.plan.units["ingest-web"].bundle({}).to_bytes() == Path(uri).read_bytes()
    assert submit(pipeline) == uri
    assert Path(uri).stat().st_mtime_ns == before.st_mtime_ns


def test_a_bundle_of_other_code_ends_with_a_sentence(pipeline: Pipeline, pod: Callable[..., Pod], image: Path, scratch: Path) -> None:
    (image / "components/toy.py").write_text((image / "components/toy.py").read_text() + "\n")
    code, log = pod(submit(pipeline)).end()
    assert code == 2
    assert "ingest-web: components/toy.py differs in this image" in log
    assert "use the image that was built from the planned commit" in log
    assert "Traceback" not in log
    assert times_run(scratch, "ingest-web") == 0


@pytest.mark.parametrize(
    ("uri", "environment", "words"),
    [
        ("{store}/units/0123/unit.json", {}, "there is no such unit"),
        ("{store}/unit.json", {}, "not the address of a unit"),
        ("{good}", {"STOCKPOT_REMOTE": ""}, "STOCKPOT_REMOTE: not set"),
    ],
)
def test_what_a_pod_lacks_is_named(pipeline: Pipeline, pod: Callable[..., Pod], uri: str, environment: dict[str, str], words: str) -> None:
    code, log = pod(uri.format(store=pipeline.store, good=submit(pipeline)), **environment).end()
    assert code == 2
    assert words in log
    assert "Traceback" not in log


def test_a_bundle_that_was_cut_off_or_damaged_is_tried_again(pipeline: Pipeline, pod: Callable[..., Pod], scratch: Path) -> None:
    uri = submit(pipeline)
    whole = Path(uri).read_bytes()
    Path(uri).write_bytes(whole[:-20])
    assert pod(uri).end()[0] == TransientError.code
    Path(uri).write_bytes(whole.replace(b'"lr": 1', b'"lr": 2'))
    code, log = pod(uri).end()
    assert code == TransientError.code
    assert "damaged on the way" in log
    assert times_run(scratch, "ingest-web") == 0


@pytest.mark.parametrize(("kind", "code", "words"), [("75", 75, "did not answer"), ("2", 2, "row 7"), ("1", 1, "a bug"), ("oom", 75, "killed by a signal")])
def test_the_exit_code_and_the_last_line_say_how_it_ended(pipeline: Pipeline, pod: Callable[..., Pod], kind: str, code: int, words: str) -> None:
    found, log = pod(submit(pipeline), TOY_FAULT=f"ingest-web:{kind}").end()
    assert found == code
    end = end_of(log)
    assert end is not None
    assert (end["code"], words in end["message"]) == (code, True)


def test_a_pod_that_is_stopped_lets_its_step_save(pipeline: Pipeline, pod: Callable[..., Pod], scratch: Path) -> None:
    running = pod(submit(pipeline), TOY_FAULT="ingest-web:hold")
    wait_for(scratch / "holding")
    running.process.send_signal(signal.SIGTERM)
    code, log = running.end()
    assert code == TransientError.code
    assert (scratch / "saved").exists()
    assert "stopped, step 3 saved" in log


def test_a_deaf_step_does_not_outlive_the_grace_time(pipeline: Pipeline, pod: Callable[..., Pod], scratch: Path) -> None:
    running = pod(submit(pipeline), TOY_FAULT="ingest-web:deaf")
    step = int(wait_for(scratch / "holding"))
    running.process.send_signal(signal.SIGTERM)
    assert running.end()[0] == TransientError.code
    wait_for_end(step)


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    env = {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "us-east-1"}
    for key, value in env.items():
        monkeypatch.setenv(key, value)
    import boto3

    boto3.Session().client("s3").create_bucket(Bucket="stockpot")
    yield env
    server.stop()


def test_store_and_remote_may_be_s3(tmp_path: Path, scratch: Path, pod: Callable[..., Pod], s3: dict[str, str]) -> None:
    pipeline = open_pipeline(make_project(tmp_path / "project", "s3://stockpot/dvc"), store="s3://stockpot/store")
    code, log = pod(submit(pipeline), STOCKPOT_REMOTE="s3://stockpot/dvc", **s3).end()
    assert code == 0, log
    assert pipeline.ensure("ingest-web", {}, lambda _: None).reused
    assert open_storage("s3://stockpot/store").list("")[0].startswith("units/")


def test_a_long_sentence_is_cut_so_that_the_end_fits_where_kubernetes_keeps_it() -> None:
    line = end_line({"code": 2, "error": "DataError", "message": "行" * 3000})
    assert len(line.encode()) < 2048
    said = heard(line)
    assert said is not None
    assert said["end"]["message"].startswith("行行")
    assert heard(line[:-5]) is None
    assert heard(json.dumps({"end": {}})) is None
