import shutil

import boto3
import huggingface_hub.constants
import pytest
from moto.server import ThreadedMotoServer

from components.errors import DataError, TransientError
from components.weights.checkpoint import open_checkpoint
from components.weights.sources import fetch


def test_a_local_folder_is_used_where_it_is(layout_b, tmp_path):
    assert fetch(str(layout_b), tmp_path) == layout_b


@pytest.fixture
def bucket(monkeypatch):
    for name, value in (("AWS_ACCESS_KEY_ID", "x"), ("AWS_SECRET_ACCESS_KEY", "x"), ("AWS_DEFAULT_REGION", "us-east-1")):
        monkeypatch.setenv(name, value)
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://{host}:{port}")
    client = boto3.Session().client("s3")
    client.create_bucket(Bucket="weights")
    yield client
    server.stop()


def test_objects_are_fetched_once_and_no_pickle_or_code_is(layout_a, bucket, tmp_path):
    for path in layout_a.iterdir():
        bucket.upload_file(str(path), "weights", f"points/7b/{path.name}")
    for other in ("pytorch_model.bin", "modeling.py", "old/config.json"):
        bucket.put_object(Bucket="weights", Key=f"points/7b/{other}", Body=b"x")
    folder = fetch("s3://weights/points/7b", tmp_path)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {path.name: path.read_bytes() for path in layout_a.iterdir()}
    assert open_checkpoint(folder).layout == "A"
    bucket.delete_object(Bucket="weights", Key="points/7b/tokenizer.json")
    assert fetch("s3://weights/points/7b", tmp_path) == folder
    assert (folder / "tokenizer.json").exists()
    with pytest.raises(DataError, match=r"s3://weights/nothing: no checkpoint files there"):
        fetch("s3://weights/nothing", tmp_path)


def test_a_hub_name_is_found_in_the_hubs_own_cache(layout_b, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    model, commit = tmp_path / "models--org--tiny-points", "1" * 40
    shutil.copytree(layout_b, model / "snapshots" / commit)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(commit)
    (model / "refs" / "v2").write_text(commit)
    assert open_checkpoint(fetch("org/tiny-points", tmp_path)).layout == "B"
    assert fetch("org/tiny-points@v2", tmp_path) == fetch("org/tiny-points", tmp_path)
    with pytest.raises(TransientError, match="org/other: the hub does not answer"):
        fetch("org/other", tmp_path)


def test_what_is_no_source_is_refused_with_what_is(tmp_path):
    with pytest.raises(DataError, match=r"nowhere: neither a folder, nor s3://"):
        fetch("nowhere", tmp_path)
