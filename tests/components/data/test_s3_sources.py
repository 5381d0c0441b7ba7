"""Sources in a real S3 server: the same shards as from a disk, known by what the objects are, safe when they change or the network breaks."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from components.data import ingest
from components.data.canonical import read_shards
from components.errors import DataError, SetupError, TransientError
from components.objects import fetch, fingerprint, listed
from components.pipeline.graph import compile_recipe
from components.recipe.loader import load
from components.step import Step
from tests.components.data.user_files import parquet, png, tar, write
from tests.conftest import ROOT
from tests.fakes.fault_proxy import fault_proxy
from tests.s3_server import S3Server

RED, BLUE = png((200, 0, 0)), png((0, 0, 200))


@pytest.fixture
def bucket(s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    for key, value in s3_server.env().items():
        monkeypatch.setenv(key, value)
    return s3_server.new_bucket()


def put(server: S3Server, bucket: str, key: str, content: bytes) -> None:
    server.client().put_object(Bucket=bucket, Key=key, Body=content)


def run(**source: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The samples and the quarantine of a source, planned and run now."""
    objects = [fingerprint(p) for p in (source["path"], source.get("images", "")) if p.startswith("s3://")]
    return run_planned(objects, **source)


def run_planned(objects: list[dict[str, Any]], **source: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    step = Step("ingest-web", {"sources": {"web": source}, "objects": {"web": objects}})
    shutil.rmtree("out", ignore_errors=True)
    step.data.mkdir(parents=True)
    ingest.run(step)
    assert sorted(p.name for p in step.data.parent.iterdir()) == ["data", "summary.json"]
    return read_shards(step.data).to_pylist(), pq.read_table(step.data / "quarantine.parquet").to_pylist()


def shard(number: int) -> bytes:
    return tar([(f"{number}{i}.{end}", content) for i in range(3) for end, content in (("png", RED), ("txt", f"no. {number}{i}".encode()))])


def test_tars_and_parquet_on_s3_give_the_bytes_that_they_give_from_a_disk(bucket: str, s3_server: S3Server) -> None:
    for number in range(3):
        put(s3_server, bucket, f"some/web/{number}.tar", shard(number))
        write(Path(f"raw/web/{number}.tar"), shard(number))
    put(s3_server, bucket, "some/web/", b"")  # what consoles leave for a folder
    put(s3_server, bucket, "some/web/_SUCCESS", b"")
    put(s3_server, bucket, "some/web2/9.tar", shard(9))
    table = parquet([{"id": "x", "image": BLUE, "caption": "blue"}, {"id": "x", "image": BLUE, "caption": "again"}])
    put(s3_server, bucket, "one.parquet", table)
    write(Path("raw/one.parquet"), table)
    pairs = [("some/web", "raw/web", "webdataset"), ("some/w*b/[12].tar", "raw/w*b/[12].tar", "webdataset"), ("one.parquet", "raw/one.parquet", "parquet")]
    for there, here, form in pairs:
        files = []
        for path in (f"s3://{bucket}/{there}", here):
            rows, quarantine = run(format=form, path=path)
            files.append((Path("out/ingest-web/data/part-00000.parquet").read_bytes(), [(q["row"], q["reason"]) for q in quarantine]))
        assert files[0] == files[1]
        assert rows
    _, quarantine = run(format="parquet", path=f"s3://{bucket}/one.parquet")
    assert quarantine[0]["file"] == f"s3://{bucket}/one.parquet"


def test_pictures_by_path_are_read_from_s3(bucket: str, s3_server: S3Server) -> None:
    put(s3_server, bucket, "pictures/deep/a.png", RED)
    put(s3_server, bucket, "secret.png", BLUE)
    talk = [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "red"}]
    paths = ["deep/a.png", "/home/me/pictures/deep/a.png", "a.png", "../secret.png", "/secret.png"]
    write(Path("raw/rows.jsonl"), [{"id": p, "image": p, "conversations": talk} for p in paths])
    rows, quarantine = run(path="raw/rows.jsonl", images=f"s3://{bucket}/pictures")
    assert [(r["id"], r["images"][0]["bytes"], r["images"][0]["path"]) for r in rows] == [(p, RED, "deep/a.png") for p in paths[:2]]
    assert [(q["id"], q["reason"]) for q in quarantine] == [("a.png", "image_missing"), ("../secret.png", "image_path"), ("/secret.png", "image_path")]


def test_what_an_address_is_known_by_follows_the_content(bucket: str, s3_server: S3Server) -> None:
    put(s3_server, bucket, "web/0.tar", shard(0))
    put(s3_server, bucket, "web/1.tar", shard(1))
    first = fingerprint(f"s3://{bucket}/web")
    assert (first["number"], first["bytes"]) == (2, len(shard(0)) * 2)
    put(s3_server, bucket, "web/1.tar", shard(1))
    put(s3_server, bucket, "web2/1.tar", shard(1))
    assert fingerprint(f"s3://{bucket}/web/") == first
    assert fingerprint(f"s3://{bucket}/web/*.tar") == first
    put(s3_server, bucket, "web/1.tar", shard(2))
    assert fingerprint(f"s3://{bucket}/web") != first
    assert [o.key for o in listed(f"s3://{bucket}/web/0.tar")] == ["web/0.tar"]


def test_the_compiled_stage_depends_on_the_objects_and_on_no_file(bucket: str, s3_server: S3Server) -> None:
    put(s3_server, bucket, "web/0.tar", shard(0))
    override = [f"sources.captions={{format: webdataset, path: s3://{bucket}/web}}"]
    first, again = (compile_recipe(load(ROOT / "tests/recipes/micro.yaml", override)) for _ in range(2))
    assert first.params_text == again.params_text
    stage = first.stages["ingest-captions"]
    assert {"engine", "objects.captions", "sources.captions.path"} < set(stage["params"])
    assert all(d.startswith("components/") for d in stage["deps"])
    put(s3_server, bucket, "web/0.tar", shard(1))
    changed = compile_recipe(load(ROOT / "tests/recipes/micro.yaml", override))
    assert changed.stages == first.stages
    assert changed.params["objects"]["captions"] != first.params["objects"]["captions"]


def test_objects_that_changed_since_the_plan_stop_the_step(bucket: str, s3_server: S3Server) -> None:
    put(s3_server, bucket, "web/0.tar", shard(0))
    uri = f"s3://{bucket}/web"
    planned, (known,) = [fingerprint(uri)], listed(uri)
    put(s3_server, bucket, "web/0.tar", shard(1))
    with pytest.raises(DataError, match=r"its objects have changed since this run was planned: run again"):
        run_planned(planned, format="webdataset", path=uri)
    with pytest.raises(SetupError, match=r"web/0\.tar: it has changed since"):
        fetch(uri, known, Path("0.tar"))


@pytest.mark.parametrize(("path", "words"), [("nothing", "no such object, and nothing below it"), ("web/*.parquet", "no such object")])
def test_an_address_of_nothing_is_refused_before_any_work(path: str, words: str, bucket: str, s3_server: S3Server) -> None:
    put(s3_server, bucket, "web/0.tar", shard(0))
    with pytest.raises(DataError, match=words):
        fingerprint(f"s3://{bucket}/{path}")
    with pytest.raises(SetupError, match=r"^s3://no-such-bucket-here/.*there is no such bucket"):
        fingerprint("s3://no-such-bucket-here/web")


def test_a_download_that_breaks_off_goes_on_where_it_broke(bucket: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytes(range(256)) * 20_000
    put(s3_server, bucket, "big.tar", content)
    (known,) = listed(f"s3://{bucket}/big.tar")
    with fault_proxy(s3_server.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        proxy.cuts(3, 1.0)
        fetch(f"s3://{bucket}/big.tar", known, Path("big.tar"))
        assert proxy.cut == 3
        assert Path("big.tar").read_bytes() == content
        proxy.cuts(100, 1.0)
        with pytest.raises(TransientError, match=r"big\.tar"):
            fetch(f"s3://{bucket}/big.tar", known, Path("big.tar"))


def test_the_quarantine_names_the_object_and_its_row(bucket: str, s3_server: S3Server) -> None:
    put(s3_server, bucket, "web/0.tar", shard(0)[:2000])
    put(s3_server, bucket, "web/1.tar", shard(1))
    rows, quarantine = run(format="webdataset", path=f"s3://{bucket}/web")
    assert [r["id"] for r in rows] == ["10", "11", "12"]
    assert [(q["file"], q["reason"]) for q in quarantine] == [(f"s3://{bucket}/web/0.tar", "broken_file")]
    assert json.loads(Path("out/ingest-web/summary.json").read_text())["rows_in"] == 4
