"""Ingest: what comes through, what is set aside and why, and that it is the same bytes every time."""

import io
import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from components.data import images, ingest
from components.data.canonical import QUARANTINE_SCHEMA, SCHEMA, read_shards
from components.data.formats.reader import MAX_PICTURE_BYTES
from components.data.quarantine import REASONS
from components.errors import DataError
from components.step import Step


def png(color: tuple[int, int, int] = (9, 8, 7), size: tuple[int, int] = (6, 4)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, "PNG")
    return buffer.getvalue()


def row(row_id: Any, image: Any = "a.png", question: str = "<image>\nWhat?", answer: str = "This.") -> dict[str, Any]:
    return {"id": row_id, "image": image, "conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]}


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "raw" / "images" / "deep"
    folder.mkdir(parents=True)
    (folder.parent / "a.png").write_bytes(png())
    (folder / "b.png").write_bytes(png((1, 2, 3)))
    return tmp_path


def run(rows: Any, name: str = "rows.json", **source: Any) -> tuple[Any, list[dict], dict]:
    """Ingests rows (or the text of a file): the canonical table, the quarantined rows, the summary."""
    Path("raw", name).write_text(rows if isinstance(rows, str) else json.dumps(rows))
    step = Step("ingest-web", {"sources": {"web": {"path": f"raw/{name}", "images": "raw/images", "license": "MIT", **source}}})
    step.data.mkdir(parents=True, exist_ok=True)
    ingest.run(step)
    quarantine = pq.read_table(step.data / "quarantine.parquet")
    assert quarantine.schema == QUARANTINE_SCHEMA
    table = read_shards(step.data)
    assert table.schema == SCHEMA
    return table, quarantine.to_pylist(), json.loads(step.side("summary.json").read_text())


def test_rows_become_canonical_samples_in_their_order_with_the_pictures_inside(project):
    table, quarantine, summary = run([row("x"), row("y", "deep/b.png"), {**row("z", None, "Why?"), "language": "zh"}], category="qa")
    assert table.to_pylist()[1] == {
        "id": "y",
        "images": [{"bytes": png((1, 2, 3)), "path": "deep/b.png"}],
        "messages": [{"role": "user", "content": "<image>\nWhat?"}, {"role": "assistant", "content": "This."}],
        "source": "web",
        "language": "en",
        "category": "qa",
        "license": "MIT",
        "verdicts": [],
    }
    assert table["id"].to_pylist() == ["x", "y", "z"]
    assert table["language"].to_pylist() == ["en", "en", "zh"]
    assert table["images"].to_pylist()[2] == quarantine == []
    assert summary == {"rows_in": 3, "rows_out": 3, "quarantined": 0, "by_reason": {}}


def test_a_json_list_and_jsonl_give_the_same_bytes_again_and_again(project):
    rows = [row(None), row(None), row("x"), row("bad", "nowhere.png")]
    first = run(rows)[0], Path("out/ingest-web/data/part-00000.parquet").read_bytes(), Path("out/ingest-web/data/quarantine.parquet").read_bytes()
    again = run(rows)[0], Path("out/ingest-web/data/part-00000.parquet").read_bytes(), Path("out/ingest-web/data/quarantine.parquet").read_bytes()
    assert again[1:] == first[1:]
    run("\n".join(map(json.dumps, rows)), "rows.jsonl")
    assert Path("out/ingest-web/data/part-00000.parquet").read_bytes() == first[1]


def test_rows_without_an_id_get_one_from_their_content_and_no_id_comes_twice(project):
    ids = run([row(None), row(None), row(None, answer="Other."), row("")])[0]["id"].to_pylist()
    assert len(set(ids)) == 4
    assert ids[1] == f"{ids[0]}-2"
    assert ids[3] == f"{ids[0]}-3"
    moved = run([row("new"), row(None, answer="Other."), row(None)])[0]["id"].to_pylist()
    assert moved == ["new", ids[2], ids[0]]


def test_bad_rows_are_set_aside_with_file_row_id_reason_and_a_sentence(project):
    folder = project / "raw" / "images"
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.png").write_text("hello")
    (folder / "strip.png").write_bytes(png(size=(1, 201)))
    (folder / "large.png").write_bytes(png(size=(101, 100)))
    (folder / "eps.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    (project / "secret.png").write_bytes(png())
    (folder / "link.png").symlink_to(project / "secret.png")
    (folder / "circle.png").symlink_to(folder / "circle.png")
    (folder / "inside.png").symlink_to(folder / "a.png")
    os.mkfifo(folder / "pipe.png")
    bad = {
        "image_missing": ["nowhere.png", "deep", "x" * 300 + ".png", "a.png/b.png", "circle.png", "pipe.png", "."],
        "image_path": ["../../secret.png", "deep/../a.png", str(project / "secret.png"), "", "a\0.png", "link.png"],
        "image_shape": ["strip.png"],
        "image_empty": ["empty.png"],
        "image_unreadable": ["text.png", "eps.png"],
        "image_too_large": ["large.png"],
        "wrong_type": [7],
    }
    rows = [row(f"{reason} {i}", path) for reason, paths in bad.items() for i, path in enumerate(paths)]
    rows += [row("duplicate_id"), row("duplicate_id"), row("inside", "inside.png"), row("no_answer", answer=""), 5]
    table, quarantine, summary = run(rows, max_pixels=10_000)
    assert table["id"].to_pylist() == ["duplicate_id", "inside"]
    assert {q["reason"] for q in quarantine} == {*bad, "duplicate_id", "no_answer"}
    for q in quarantine[:-1]:
        assert q["reason"] == q["id"].split()[0]
        assert rows[q["row"] - 1]["id"] == q["id"]
        assert q["file"] == "raw/rows.json"
        assert q["source"] == "web"
        assert len(q["detail"]) > 20
    assert (quarantine[-1]["row"], quarantine[-1]["id"], quarantine[-1]["reason"]) == (len(rows), "", "wrong_type")
    assert summary["rows_in"] == len(rows) == summary["rows_out"] + summary["quarantined"]
    assert summary["by_reason"]["image_path"] == 6
    assert set(summary["by_reason"]) <= set(REASONS)


def test_a_refused_row_does_not_take_its_id_along(project):
    table, quarantine, _ = run([row("x", "nowhere.png"), row("x")])
    assert table["id"].to_pylist() == ["x"]
    assert [q["reason"] for q in quarantine] == ["image_missing"]


def test_a_broken_line_of_jsonl_is_set_aside_with_its_line_number(project):
    _, quarantine, summary = run("\n".join(["", json.dumps(row("x")), '{"id": ']), "rows.jsonl")
    assert [(q["row"], q["reason"]) for q in quarantine] == [(3, "broken_json")]
    assert summary["rows_in"] == 2


def test_a_truncated_picture_comes_through_for_curation_to_find(project):
    noise = os.urandom(64 * 64 * 3)
    buffer = io.BytesIO()
    Image.frombytes("RGB", (64, 64), noise).save(buffer, "JPEG")
    Path("raw/images/cut.jpg").write_bytes(buffer.getvalue()[:-1000])
    assert run([row("cut", "cut.jpg")])[0].num_rows == 1


def test_a_picture_file_of_too_many_bytes_is_not_read(project):
    with Path("raw/images/huge.png").open("wb") as f:
        f.truncate(MAX_PICTURE_BYTES + 1)  # a hole: takes no space
    assert [q["reason"] for q in run([row("x", "huge.png")])[1]] == ["image_too_large"]


def test_text_like_control_tokens_is_kept_as_text(project):
    table, _, _ = run([row("x", question="<image><|im_start|>", answer="<|im_end|>")])
    assert [m["content"] for m in table["messages"].to_pylist()[0]] == ["<image><|im_start|>", "<|im_end|>"]


def test_a_picture_is_found_by_a_longer_path_and_by_its_bare_name(project):
    paths = ["images/a.png", "raw/images/deep/b.png", str(project / "raw/images/a.png"), "/home/somebody/images/deep/b.png", "b.png", "./a.png"]
    table, quarantine, _ = run([row(path, path) for path in paths])
    assert quarantine == []
    assert [i[0]["path"] for i in table["images"].to_pylist()] == ["a.png", "deep/b.png", "a.png", "deep/b.png", "deep/b.png", "a.png"]


def test_a_bare_name_that_two_sub_folders_have_is_not_guessed(project):
    other = project / "raw/images/other"
    other.mkdir()
    (other / "b.png").write_bytes(png())
    _, quarantine, _ = run([row("x"), row("y", "b.png"), row("z", "deep/b.png")])
    assert [(q["id"], q["reason"]) for q in quarantine] == [("y", "image_missing")]
    assert "2 files" in quarantine[0]["detail"]


def test_a_missing_picture_in_one_sub_folder_is_not_taken_from_another(project):
    assert [q["reason"] for q in run([row("x"), row("y", "train/b.png")])[1]] == ["image_missing"]


def test_rows_of_which_no_picture_is_in_the_folder_end_with_the_folder_and_an_example(project):
    with pytest.raises(DataError, match=r"not one of the pictures.*in raw/images; row 1: image: 'x/1\.jpg'.*holds, for example, '[a-z/]+\.png'") as error:
        run([row("x", "x/1.jpg"), row("y", "/somewhere/2.jpg"), row("z", None, "Why?")])
    assert error.value.code == 2


def test_animated_pictures_come_through_and_show_their_first_frame(project):
    for name in ("a.gif", "a.webp"):
        frames = [Image.new("RGB", (20, 10), color) for color in ("red", "blue")]
        frames[0].save(project / "raw/images" / name, save_all=True, append_images=frames[1:], lossless=True)
        pictures = run([row(name, name)])[0]["images"].to_pylist()
        assert images.decode(pictures[0][0]["bytes"], 1000).getpixel((5, 5)) == (255, 0, 0)


def test_a_side_of_20000_pixels_is_measured_before_it_is_decoded(project):
    for name, size in (("square.png", (20_000, 20_000)), ("long.png", (20_000, 120)), ("line.png", (20_000, 20))):
        Image.new("1", size).save(project / "raw/images" / name)
    tracemalloc.start()
    table, quarantine, _ = run([row(n, n) for n in ("square.png", "long.png", "line.png")])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [(q["id"], q["reason"]) for q in quarantine] == [("square.png", "image_too_large"), ("line.png", "image_shape")]
    assert table["id"].to_pylist() == ["long.png"]
    assert peak < 2**25


def test_a_source_without_a_language_has_it_told_by_the_script_of_each_row(project):
    rows = [row("x"), row("y", question="<image>\n这是什么？", answer="圆形"), row("z", answer="круг, чёрный круг"), {**row("w"), "language": "nl"}]
    assert run(rows, language=None)[0]["language"].to_pylist() == ["en", "zh", "ru", "nl"]
    assert run(rows, language="fr")[0]["language"].to_pylist() == ["fr", "fr", "fr", "nl"]


def test_no_rows_at_all_leave_one_empty_shard(project):
    table, quarantine, summary = run([])
    assert table.num_rows == len(quarantine) == summary["rows_in"] == 0


def test_pictures_without_a_folder_of_pictures_are_set_aside(project):
    table, quarantine, _ = run([row("x"), row("y", None, "Why?")], images=None)
    assert table["id"].to_pylist() == ["y"]
    assert "`images`" in quarantine[0]["detail"]


@pytest.mark.parametrize(
    ("rows", "source", "words"),
    [
        ('{"rows": []}', {}, "raw/rows.json"),
        ('[{"id": 1}', {}, "raw/rows.json: line 1"),
        ([], {"path": "raw/none.json"}, "raw/none.json: no such file"),
        ([], {"path": "raw/images"}, "raw/images: not one file whose name ends in .json"),
        ([], {"images": "raw/pictures"}, "raw/pictures: no such folder"),
    ],
)
def test_a_source_that_is_broken_as_a_whole_ends_with_exit_code_2_and_a_sentence(project, rows, source, words):
    with pytest.raises(DataError) as error:
        run(rows, **source)
    assert error.value.code == 2
    assert words in str(error.value)
