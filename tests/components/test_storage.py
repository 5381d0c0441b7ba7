"""Folder and S3 keep the same promises: whole objects, created once, listed in order, verified when read."""

import threading
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from moto.server import ThreadedMotoServer

from components.errors import SetupError, TransientError
from components.storage import S3, Storage, open_storage
from tests.fakes.fault_proxy import fault_proxy
from tests.s3_server import S3Server


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """Address of an S3 server on a socket."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=["folder", "moto", "ceph"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    if request.param == "folder":
        return open_storage(str(tmp_path / "store"))
    import boto3

    server = request.getfixturevalue("s3_server") if request.param == "ceph" else S3Server(request.getfixturevalue("s3"))
    for key, value in server.env().items():
        monkeypatch.setenv(key, value)
    bucket = f"b-{uuid4().hex}"
    boto3.Session().client("s3").create_bucket(Bucket=bucket)
    return open_storage(f"s3://{bucket}/some/prefix")


def test_what_was_put_is_read_and_what_was_not_is_a_key_error(store: Storage) -> None:
    assert store.put_new("a/b.json", b"bytes")
    assert store.get("a/b.json") == b"bytes"
    with pytest.raises(KeyError):
        store.get("a/c.json")


def test_a_name_is_taken_once_and_keeps_its_first_bytes(store: Storage) -> None:
    assert store.put_new("x", b"first")
    assert not store.put_new("x", b"second")
    assert store.get("x") == b"first"


def test_of_many_that_race_for_a_name_one_wins(store: Storage) -> None:
    wins = []
    barrier = threading.Barrier(8)

    def race(i: int) -> None:
        barrier.wait()
        if store.put_new("name", str(i).encode()):
            wins.append(i)

    threads = [threading.Thread(target=race, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert [store.get("name").decode()] == [str(i) for i in wins]


def test_a_prefix_is_listed_in_order_and_deleted_alone(store: Storage) -> None:
    for key in ("log/2", "log/10", "log/1", "logs/1", "other"):
        store.put_new(key, b"")
    assert store.list("log/") == ["log/1", "log/10", "log/2"]
    store.delete("log/")
    store.delete("nothing/")
    assert store.list("") == ["logs/1", "other"]


def test_a_bucket_that_does_not_answer_is_transient_and_a_refusal_is_not(monkeypatch: pytest.MonkeyPatch, s3: str) -> None:
    for key, value in {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1", "AWS_MAX_ATTEMPTS": "1"}.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(TransientError, match=r"s3://gone/key"):
        open_storage("s3://gone").get("key")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3)
    for use in (lambda store: store.get("key"), lambda store: store.put_new("key", b""), lambda store: store.list("")):
        with pytest.raises(SetupError, match=r"s3://never-made/.*: there is no such bucket"):
            use(open_storage("s3://never-made"))


def test_a_body_that_ends_in_the_middle_is_worth_another_try(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with fault_proxy(s3_server.endpoint) as proxy:
        for key, value in s3_server.env(endpoint=proxy.url).items():
            monkeypatch.setenv(key, value)
        store = open_storage(f"s3://{s3_server.new_bucket()}/p")
        store.put_new("a", b"0" * 1000)
        proxy.cuts(1, 1.0)
        with pytest.raises(TransientError, match=r"STOCKPOT_STORE s3://.*/p/a: .*: try again later"):
            store.get("a")
        assert store.get("a") == b"0" * 1000


def test_a_profile_has_the_credentials_and_the_endpoint(s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket, (access, secret) = s3_server.new_bucket(), s3_server.user
    (tmp_path / "credentials").write_text(f"[research]\naws_access_key_id = {access}\naws_secret_access_key = {secret}\n")
    (tmp_path / "config").write_text(f"[profile research]\nregion = eu-south-2\nendpoint_url = {s3_server.endpoint}\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "research")
    store = open_storage(f"s3://{bucket}/p")
    assert isinstance(store, S3)
    assert store.put_new("a", b"1")
    assert store.list("") == ["a"]
    assert store.client.meta.region_name == "eu-south-2"


@pytest.mark.parametrize("name", ["AWS_REGION", "AWS_DEFAULT_REGION"])
def test_the_region_comes_from_either_variable(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "af-south-1")
    store = open_storage("s3://bucket")
    assert isinstance(store, S3)
    assert store.client.meta.region_name == "af-south-1"


def test_refusals_of_a_real_server_name_the_store_and_the_remedy(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket, access = s3_server.new_bucket(), s3_server.user[0]
    faults = {
        "the access key is unknown there": s3_server.env(("AKIANOBODY", "x")),
        "the secret key is not that of the access key": s3_server.env((access, "x")),
        "these credentials may not do that": s3_server.env(s3_server.guest),
        "Invalid endpoint: nowhere": s3_server.env(endpoint="nowhere"),
    }
    for words, env in faults.items():
        for key, value in env.items():
            monkeypatch.setenv(key, value)
        for use in (lambda store: store.get("key"), lambda store: store.put_new("key", b""), lambda store: store.list("")):
            with pytest.raises(SetupError, match=rf"^STOCKPOT_STORE s3://{bucket}/.*: {words}"):
                use(open_storage(f"s3://{bucket}"))


def test_https_needs_a_trusted_certificate_and_an_older_server_older_checksums(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in s3_server.env(endpoint=s3_server.tls_endpoint).items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    uri = f"s3://{s3_server.new_bucket()}/p"
    with pytest.raises(SetupError, match=r"CERTIFICATE_VERIFY_FAILED.*: let AWS_CA_BUNDLE name a file"):
        open_storage(uri).put_new("a", b"1")
    monkeypatch.setenv("AWS_CA_BUNDLE", s3_server.certificate)
    refusal = None
    try:
        open_storage(uri).put_new("a", b"1")
    except SetupError as error:
        refusal = str(error)
    assert refusal is None or refusal.endswith("set AWS_REQUEST_CHECKSUM_CALCULATION=when_required")  # newer releases of the server do not refuse it
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
    assert open_storage(uri).put_new("b", b"1")
    assert open_storage(uri).get("b") == b"1"


def test_nothing_is_left_beside_an_object(tmp_path: Path) -> None:
    store = open_storage(str(tmp_path))
    store.put_new("a", b"1")
    store.put_new("a", b"2")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
