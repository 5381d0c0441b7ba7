"""The DVC remote, a folder or a real S3 server: what one machine has finished the next one finds, and what fails says so without losing anything."""

import contextlib
import http.server
import json
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.errors import DataError, PermanentError, SetupError, TransientError
from components.pipeline.content import Content
from components.storage import open_storage
from tests.components.pipeline import toy
from tests.components.pipeline.toy import compile_toy, dvc, open_pipeline, run_all, times_run
from tests.fakes.fault_proxy import fault_proxy
from tests.s3_server import S3Server

TWO_STEPS: dict[str, Any] = {"ingest": {"web": {"reads": ["data/web"], "lr": 1}}, "soup": {"reads": ["out/ingest-web/data"], "lr": 0}}
ROOT = Path(__file__).parents[3]
DEAD = "http://127.0.0.1:9"


def make_project(root: Path, remote: Path | str, **settings: str) -> Path:
    project = toy.make_project(root, remote, **settings)
    compile_toy(project, TWO_STEPS)
    return project


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("TOY_SCRATCH", str(folder))
    return folder


def use(monkeypatch: pytest.MonkeyPatch, env: dict[str, str]) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def bucket(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new bucket; the environment has its server and its owner's key."""
    use(monkeypatch, s3_server.env())
    return s3_server.new_bucket()


@pytest.fixture
def other_server() -> Iterator[str]:
    """An HTTP server that is not S3."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def keys(server: S3Server, bucket: str, prefix: str) -> list[str]:
    return [o["Key"] for o in server.client().list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", [])]


def test_a_fresh_clone_reuses_from_s3_what_another_machine_has_run(tmp_path: Path, scratch: Path, bucket: str) -> None:
    store = open_storage(f"s3://{bucket}/store")
    first = open_pipeline(make_project(tmp_path / "one", f"s3://{bucket}/some/prefix"), store=f"s3://{bucket}/store")
    store.put_new(f"ckpt/{first.plan.units['ingest-web'].identity({})}/step-1/manifest.json", b"of an attempt that was killed")
    records, _ = run_all(first)
    assert store.list("ckpt/") == []  # removed when the step is done
    clone = make_project(tmp_path / "two", f"s3://{bucket}/some/prefix")
    again, reused = run_all(open_pipeline(clone))
    assert all(reused.values())
    assert again == records
    assert times_run(scratch, "soup") == 1
    Content(clone).show(again)
    shutil.rmtree(clone / ".dvc/cache")
    shutil.rmtree(clone / "out")
    dvc(clone, "pull")
    assert (clone / "out/soup/data/part-0").is_file()
    assert "up to date" in dvc(clone, "status")
    assert "in sync" in dvc(clone, "status", "--cloud")


def test_a_key_that_may_not_write_loses_no_finished_step_and_leaves_no_record(
    tmp_path: Path, scratch: Path, bucket: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record comes last: where an object could not be sent, there is none."""
    allowed = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/runs/*"]
    guest = {"AWS": ["arn:aws:iam:::user/guest"]}
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": guest, "Action": "s3:*", "Resource": allowed},
            {"Effect": "Allow", "Principal": guest, "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{bucket}/files/*"},
        ],
    }
    s3_server.client().put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))
    project = make_project(tmp_path / "one", f"s3://{bucket}")
    open_pipeline(project)  # the source is there
    use(monkeypatch, s3_server.env(s3_server.guest))
    with pytest.raises(PermanentError, match=rf"ingest-web: DVC remote store \(s3://{bucket}\): these credentials may not do that"):
        open_pipeline(project).ensure("ingest-web", {}, lambda _: None)
    assert keys(s3_server, bucket, "runs/") == []
    use(monkeypatch, s3_server.env())
    done = open_pipeline(project).ensure("ingest-web", {}, lambda _: None)
    assert done.reused
    assert times_run(scratch, "ingest-web") == 1
    assert len(keys(s3_server, bucket, "runs/")) == 1  # published now


def test_a_server_that_goes_away_is_transient_and_loses_no_finished_step(
    tmp_path: Path, scratch: Path, bucket: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make_project(tmp_path / "one", f"s3://{bucket}/p")
    pipeline = open_pipeline(project)
    use(monkeypatch, s3_server.env(endpoint=DEAD))
    with pytest.raises(TransientError, match=rf"ingest-web: DVC remote store \(s3://{bucket}/p\): no answer from {DEAD}: try again later"):
        pipeline.ensure("ingest-web", {}, lambda _: None)
    use(monkeypatch, s3_server.env())
    assert open_pipeline(project).ensure("ingest-web", {}, lambda _: None).reused
    assert open_pipeline(make_project(tmp_path / "two", f"s3://{bucket}/p")).ensure("ingest-web", {}, lambda _: None).reused
    assert times_run(scratch, "ingest-web") == 1


def test_a_record_whose_objects_are_gone_from_the_remote_is_not_believed_and_is_mended(tmp_path: Path, scratch: Path, bucket: str, s3_server: S3Server) -> None:
    done = open_pipeline(make_project(tmp_path / "one", f"s3://{bucket}")).ensure("ingest-web", {}, lambda _: None)
    listing = next(o["md5"] for o in done.record["outs"] if o["md5"].endswith(".dir"))
    body = s3_server.client().get_object(Bucket=bucket, Key=f"files/md5/{listing[:2]}/{listing[2:]}")["Body"].read()
    file = json.loads(body)[0]["md5"]
    s3_server.client().delete_object(Bucket=bucket, Key=f"files/md5/{file[:2]}/{file[2:]}")
    again = open_pipeline(make_project(tmp_path / "two", f"s3://{bucket}")).ensure("ingest-web", {}, lambda _: None)
    assert not again.reused
    assert open_pipeline(make_project(tmp_path / "three", f"s3://{bucket}")).ensure("ingest-web", {}, lambda _: None).reused
    assert times_run(scratch, "ingest-web") == 2


def test_profile_and_endpoint_may_be_those_of_the_dvc_remote(tmp_path: Path, bucket: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in s3_server.env():
        monkeypatch.delenv(name)
    monkeypatch.delenv("AWS_SHARED_CREDENTIALS_FILE")
    access, secret = s3_server.user
    (tmp_path / "credentials").write_text(f"[research]\naws_access_key_id = {access}\naws_secret_access_key = {secret}\n")
    settings = {"profile": "research", "credentialpath": str(tmp_path / "credentials"), "endpointurl": s3_server.endpoint}
    pipeline = open_pipeline(make_project(tmp_path / "one", f"s3://{bucket}", **settings))
    assert not pipeline.ensure("ingest-web", {}, lambda _: None).reused
    assert len(keys(s3_server, bucket, "runs/")) == 1


def test_a_server_with_a_certificate_of_its_own_is_reached_over_https(
    tmp_path: Path, bucket: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, s3_server.env(endpoint=s3_server.tls_endpoint) | {"AWS_REQUEST_CHECKSUM_CALCULATION": "when_required"})
    content = Content(make_project(tmp_path / "one", f"s3://{bucket}"))
    source = content.add(content.root / "data/web")
    with pytest.raises(SetupError, match=r"DVC remote store .*CERTIFICATE_VERIFY_FAILED.*: let AWS_CA_BUNDLE name a file"):
        content.push([source])
    monkeypatch.setenv("AWS_CA_BUNDLE", s3_server.certificate)
    Content(content.root).push([source])
    assert keys(s3_server, bucket, "files/") == [f"files/md5/{source[:2]}/{source[2:]}"]


def test_the_region_comes_from_either_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-south-2")
    content = Content(make_project(tmp_path / "one", "s3://bucket"))
    assert content.remote is not None
    assert content.remote.fs.fs.client_kwargs["region_name"] == "eu-south-2"
    assert "region = eu-south-2" in content.config_text()  # the unit's own process uses the same
    named = Content(make_project(tmp_path / "two", "s3://bucket", region="af-south-1"))
    assert named.remote is not None
    assert named.remote.fs.fs.client_kwargs["region_name"] == "af-south-1"


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("key", "the access key is unknown there: check the credentials"),
        ("secret", "the secret key is not that of the access key: check the credentials"),
        ("no key", "Unable to locate credentials: check region, profile and credentials"),
        ("no profile", r"The config profile \(nobody\) could not be found: check region, profile and credentials"),
        ("guest", "these credentials may not do that: let them list, read and write there"),
        ("bucket", "there is no such bucket: create it, or name another"),
        ("not S3", "the answer is not one of an S3 server .*: check the endpoint"),
        ("no address", "Invalid endpoint: nowhere: check the endpoint"),
    ],
)
def test_what_s3_refuses_is_one_sentence_that_names_the_remote_and_the_remedy(
    tmp_path: Path, bucket: str, other_server: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, fault: str, words: str
) -> None:
    faults = {
        "key": s3_server.env(("AKIANOBODY", "x")),
        "secret": s3_server.env((s3_server.user[0], "x")),
        "guest": s3_server.env(s3_server.guest),
        "not S3": s3_server.env(endpoint=other_server),
        "no address": s3_server.env(endpoint="nowhere"),
    }
    use(monkeypatch, faults.get(fault, {}))
    if fault == "no key":
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    url = "s3://never-made/p" if fault == "bucket" else f"s3://{bucket}/p"
    settings = {"profile": "nobody"} if fault == "no profile" else {}
    project = make_project(tmp_path / "one", url, **settings)
    with pytest.raises(SetupError, match=rf"^DVC remote store \({url}\): {words}") as caught:
        Content(project).lookup("a" * 64)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("[core]\n    no_scm = true\n    remote = team\n", "DVC remote team: .*'team' doesn't exist.*: check `dvc remote list`"),
        (
            "[core]\n    no_scm = true\n    remote = team\n['remote \"team\"']\n    url = s3://b\n    version_aware = true\n",
            r"DVC remote team \(s3://b\): .*cloud versioned",
        ),
        (
            "[core]\n    no_scm = true\n    remote = team\n['remote \"team\"']\n    url = s3://b\n    endpoint = x\n",
            r"\.dvc: .*extra keys not allowed.*endpoint",
        ),
    ],
)
def test_a_dvc_configuration_that_is_of_no_use_is_one_sentence(tmp_path: Path, config: str, words: str) -> None:
    project = make_project(tmp_path / "one", tmp_path / "remote")
    (project / ".dvc/config").write_text(config)
    with pytest.raises(SetupError, match=words) as caught:
        Content(project)
    assert "\n" not in str(caught.value)


def test_a_folder_remote_that_is_a_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "remote").write_text("")
    with pytest.raises(SetupError, match=r"DVC remote store \(.*/remote\): .*: a folder is expected there"):
        open_pipeline(make_project(tmp_path / "one", tmp_path / "remote"))


def test_a_record_that_was_cut_off_is_passed_over(tmp_path: Path) -> None:
    done = open_pipeline(make_project(tmp_path / "one", tmp_path / "remote")).ensure("ingest-web", {}, lambda _: None)
    (file,) = (tmp_path / "remote/runs").glob("*/*/*")
    clone = Content(make_project(tmp_path / "two", tmp_path / "remote"))
    assert clone.lookup(file.parent.name) == done.record
    text = file.read_text()
    for cut in (text[: len(text) // 2], text.rpartition("\n- path")[0], "", "{"):
        file.write_text(cut)
        assert clone.lookup(file.parent.name) is None


def test_data_that_is_nowhere_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"{'a' * 32}: in no cache and not in DVC remote store"):
        Content(make_project(tmp_path / "one", tmp_path / "remote")).pull(["a" * 32])
    with pytest.raises(DataError, match="and there is no DVC remote"):
        Content(toy.make_project(tmp_path / "two")).pull(["a" * 32])


def test_a_workspace_keeps_the_remotes_credentials_to_its_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_FAULT", "ingest-web:2")  # a failed unit's workspace stays
    project = make_project(tmp_path / "one", tmp_path / "remote")
    with pytest.raises(PermanentError):
        open_pipeline(project).ensure("ingest-web", {}, lambda _: None)
    (config,) = (project / ".stockpot/work").glob("*/tree/.dvc/config")
    assert stat.S_IMODE(config.stat().st_mode) == 0o600


def test_answers_that_end_in_the_middle_do_no_harm(tmp_path: Path, scratch: Path, bucket: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is asked again, or the whole unit is; what arrives is right, and nothing runs twice that was done."""
    records, _ = run_all(open_pipeline(make_project(tmp_path / "one", f"s3://{bucket}/p")))
    with fault_proxy(s3_server.endpoint, seed=1) as proxy:
        use(monkeypatch, s3_server.env(endpoint=proxy.url))
        proxy.cuts(12, 0.5)
        clone = make_project(tmp_path / "two", f"s3://{bucket}/p")
        for _ in range(20):
            with contextlib.suppress(TransientError):
                again, reused = run_all(open_pipeline(clone))
                Content(clone).show(again)
                break
        assert proxy.cut > 3
    assert again == records
    assert all(reused.values())
    assert times_run(scratch, "soup") == 1
    assert (clone / "out/soup/data/part-1").read_text() == "0"


def test_what_another_process_finishes_meanwhile_is_found(tmp_path: Path, scratch: Path, bucket: str, s3_server: S3Server) -> None:
    """A flow waits for units that run elsewhere; what it has listed before must not hide what they publish."""
    for i in range(256):  # of others
        s3_server.client().put_object(Bucket=bucket, Key=f"p/files/md5/{i:02x}/{'0' * 30}", Body=b"")
    waiting = open_pipeline(make_project(tmp_path / "one", f"s3://{bucket}/p"))
    other = make_project(tmp_path / "two", f"s3://{bucket}/p")
    waiting.content.push([waiting.content.add(other / "data/web")])
    program = "import sys; from pathlib import Path; from tests.components.pipeline.toy import *; p = open_pipeline(Path(sys.argv[1])); r = {}\n"
    program += "for n in sys.argv[2:]: r[n] = p.ensure(n, r, lambda _: None).record"
    records: dict[str, Any] = {}
    for name, unit in waiting.plan.units.items():
        key = unit.identity(records)
        assert waiting.content.lookup(key) is None
        assert waiting.content.remote
        assert not waiting.content.remote.odb.oids_exist(["1" * 32, "2" * 32])  # lists all that there is
        subprocess.run([sys.executable, "-c", program, str(other), *records, name], check=True, cwd=ROOT)
        record = waiting.content.lookup(key)
        assert record is not None
        records[name] = record
