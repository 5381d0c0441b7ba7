"""A whole run over a WebDataset tar and a Parquet file in a real S3 server; nothing to do while the objects stay, ingest anew when one changes."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.components.data.user_files import parquet, tar
from tests.conftest import Project
from tests.s3_server import S3Server

DRAWN = Path("out/draw/data")


def upload(project: Project, server: S3Server, bucket: str) -> None:
    """The drawn captions as two tars, the drawn questions as Parquet."""
    client, drawn = server.client(), project.root / DRAWN

    def rows(name: str) -> list[dict[str, Any]]:
        return [r for r in json.loads((drawn / name).read_text()) if (drawn / "images" / r["image"]).is_file()]

    captions = rows("captions.json")
    for number in range(2):
        members = []
        for row in captions[number::2]:
            members += [
                (f"{row['id']}{Path(row['image']).suffix}", (drawn / "images" / row["image"]).read_bytes()),
                (f"{row['id']}.json", json.dumps(row).encode()),
            ]
        client.put_object(Bucket=bucket, Key=f"captions/{number}.tar", Body=io.BytesIO(tar(members)))
    questions = [{**row, "image": (drawn / "images" / row["image"]).read_bytes()} for row in rows("questions.json")]
    client.put_object(Bucket=bucket, Key="questions.parquet", Body=parquet(questions))


@pytest.mark.slow
def test_a_run_over_s3_trains_is_reused_and_notices_a_changed_object(project: Project, s3_server: S3Server) -> None:
    bucket = s3_server.new_bucket()
    upload(project, s3_server, bucket)
    recipe = YAML().load((project.root / "recipes/micro.yaml").read_text())
    recipe["sources"] = {
        "captions": {"format": "webdataset", "path": f"s3://{bucket}/captions/*.tar", "category": "caption"},
        "questions": {"format": "parquet", "path": f"s3://{bucket}/questions.parquet", "category": "qa"},
    }
    with (project.root / "recipes/micro.yaml").open("w") as f:
        YAML().dump(recipe, f)
    project.environment |= s3_server.env()
    first = project.stockpot("run", "micro", "--json")
    assert first.code == 0, first.err
    assert {n: first.states[n] for n in ("draw", "ingest-captions", "ingest-questions", "package")} == {
        "draw": "reused",
        "ingest-captions": "ran",
        "ingest-questions": "ran",
        "package": "ran",
    }
    assert first.line["data"]["rows_kept"] > 200
    again = project.stockpot("run", "micro", "--json")
    assert again.code == 0, again.err
    assert set(again.states.values()) == {"reused"}
    s3_server.client().put_object(Bucket=bucket, Key="captions/1.tar", Body=tar([("x.txt", b"a text alone")]))
    changed = project.stockpot("status", "micro", "--json")
    assert changed.code == 0, changed.err
    states = changed.states
    assert (states["ingest-captions"], states["ingest-questions"]) == ("to do", "done")
    s3_server.client().delete_object(Bucket=bucket, Key="questions.parquet")
    gone = project.stockpot("run", "micro", "--json")
    assert gone.code == 2
    assert f"s3://{bucket}/questions.parquet: no such object" in gone.err
