"""Every format gives the samples that its rows mean; several files are one source; the usual untidiness is understood."""

import json
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.data import ingest
from components.data.canonical import read_shards
from components.data.formats.table import FORMATS
from components.errors import DataError
from components.recipe.data import Format, Source
from components.step import Step
from tests.components.data.user_files import HF_IMAGE, b64, parquet, png, tar, tsv, write

RED, BLUE = png((200, 0, 0)), png((0, 0, 200))


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write(Path("raw/images/a.png"), RED)
    write(Path("raw/images/deep/b.png"), BLUE)
    return tmp_path


def run(form: str, path: str, **source: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The samples and the quarantine of a source."""
    step = Step("ingest-web", {"sources": {"web": {"format": form, "path": path, **source}}})
    step.data.mkdir(parents=True, exist_ok=True)
    ingest.run(step)
    summary = json.loads(step.side("summary.json").read_text())
    rows, quarantine = read_shards(step.data).to_pylist(), pq.read_table(step.data / "quarantine.parquet").to_pylist()
    assert summary["rows_in"] == len(rows) + len(quarantine)
    return rows, quarantine


def said(sample: dict[str, Any]) -> list[str]:
    return [m["content"] for m in sample["messages"]]


def shown(sample: dict[str, Any]) -> list[bytes]:
    return [i["bytes"] for i in sample["images"]]


def test_the_recipe_and_the_table_know_the_same_formats() -> None:
    assert set(FORMATS) == set(get_args(Format))


# -- messages --------------------------------------------------------------------------------------------------------------


def test_sharegpt_and_openai_rows_are_read_from_one_file() -> None:
    openai = [{"role": "user", "content": "<image>What?"}, {"role": "assistant", "content": "Red."}]
    sharegpt = [{"from": "human", "value": "<image>What?"}, {"from": "gpt", "value": "Red."}]
    write(Path("raw/rows.jsonl"), [{"id": 1, "images": ["a.png"], "messages": openai}, {"id": 2, "image": "a.png", "conversations": sharegpt}])
    first, second = run("messages", "raw/rows.jsonl", images="raw/images")[0]
    assert (first["messages"], first["images"]) == (second["messages"], second["images"])
    assert shown(first) == [RED]


def test_pictures_among_the_parts_of_a_message_leave_their_marks_in_place() -> None:
    parts = [
        {"type": "text", "text": "First "},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{b64(BLUE)}"}},
        {"type": "text", "text": "then "},
        {"type": "image", "image": "a.png"},
    ]
    answer = [{"type": "text", "text": "Blue, "}, {"type": "text", "text": "red."}]
    write(Path("raw/rows.json"), [{"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": answer}]}])
    (sample,) = run("messages", "raw/rows.json", images="raw/images")[0]
    assert said(sample) == ["First <image>\nthen <image>", "Blue, red."]
    assert shown(sample) == [BLUE, RED]


def test_what_the_system_says_first_comes_before_the_first_question() -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
    write(Path("raw/rows.jsonl"), [{"messages": turns}, {"messages": [{"role": "system", "content": ""}, *turns[1:]]}, {"messages": [*turns, turns[0]]}])
    rows, quarantine = run("messages", "raw/rows.jsonl")
    assert [said(r) for r in rows] == [["Be brief.\nWhy?", "So."], ["Why?", "So."]]
    assert [q["reason"] for q in quarantine] == ["turn_order"]


def test_a_row_without_any_mark_has_its_pictures_before_the_first_question() -> None:
    turns = [{"role": "user", "content": "Which is red?"}, {"role": "assistant", "content": "The first."}]
    write(Path("raw/rows.jsonl"), [{"images": ["a.png", "b.png"], "messages": turns}])
    (sample,) = run("messages", "raw/rows.jsonl", images="raw/images")[0]
    assert said(sample)[0] == "<image>\n<image>\nWhich is red?"


def test_what_is_on_the_web_or_no_picture_is_set_aside() -> None:
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]
    rows = [
        {"images": ["http://127.0.0.1:1/a.png"], "messages": turns},
        {"videos": ["a.mp4"], "messages": turns},
        {"images": ["data:image/png,x"], "messages": turns},
    ]
    write(Path("raw/rows.jsonl"), rows)
    assert [q["reason"] for q in run("messages", "raw/rows.jsonl", images="raw/images")[1]] == ["image_path", "wrong_type", "image_base64"]


def test_columns_of_the_recipe_take_the_place_of_the_usual_names() -> None:
    row = {"key": "x", "bild": "a.png", "frage": "Farbe?", "antwort": 3, "caption": "not this"}
    write(Path("raw/rows.jsonl"), [row, {"bild": "a.png", "caption": "not this"}])
    columns = {"id": "key", "image": "bild", "question": "frage", "answer": "antwort"}
    rows, quarantine = run("messages", "raw/rows.jsonl", images="raw/images", columns=columns)
    assert [(r["id"], said(r)) for r in rows] == [("x", ["<image>\nFarbe?", "3"])]
    assert quarantine[0]["detail"].startswith("frage: not in the row; it has 'bild', 'caption'")


# -- webdataset ------------------------------------------------------------------------------------------------------------


def test_members_of_one_name_are_a_sample_and_its_name_is_the_id() -> None:
    talk = {"id": "own", "conversations": [{"from": "human", "value": "<image>?"}, {"from": "gpt", "value": "Blue."}], "language": "de"}
    members = [
        ("web/000.jpg", RED),
        ("web/000.txt", b"a red one\n"),
        ("web/000.cls", b"3"),
        ("README", b"no sample"),
        ("web/001.left.png", BLUE),
        ("web/001.json", json.dumps(talk).encode()),
        ("web/002.0.png", RED),
        ("web/002.1.PNG", BLUE),
        ("web/002.json", json.dumps({"caption": "two", "url": "x", "image": "elsewhere.png"}).encode()),
        ("web/003.txt", b"text alone"),
    ]
    write(Path("raw/00000.tar"), tar(members))
    rows, quarantine = run("webdataset", "raw/00000.tar")
    assert quarantine == []
    assert [r["id"] for r in rows] == ["web/000", "own", "web/002", "web/003"]
    assert [said(r) for r in rows] == [["<image>", "a red one"], ["<image>?", "Blue."], ["<image>\n<image>", "two"], ["", "text alone"]]
    assert [shown(r) for r in rows] == [[RED], [BLUE], [RED, BLUE], []]
    assert [i["path"] for r in rows for i in r["images"]] == ["web/000.jpg", "web/001.left.png", "web/002.0.png", "web/002.1.PNG"]
    assert rows[1]["language"] == "de"


def test_names_that_come_again_in_another_shard_are_numbered() -> None:
    for shard in ("00000", "00001"):
        write(Path(f"raw/web/{shard}.tar.gz"), tar([("0.png", RED), ("0.txt", shard.encode())]))
    rows = run("webdataset", "raw/web")[0]
    assert [(r["id"], said(r)[1]) for r in rows] == [("0", "00000"), ("0-2", "00001")]


def test_a_packed_shard_gives_the_same_bytes() -> None:
    members = tar([("0.png", RED), ("0.txt", b"x")])
    for name in ("a.tar", "b.tar.gz"):
        write(Path("raw") / name, members)
    written = []
    for name in ("a.tar", "b.tar.gz"):
        assert len(run("webdataset", f"raw/{name}")[0]) == 1
        written.append(Path("out/ingest-web/data/part-00000.parquet").read_bytes())
    assert written[0] == written[1]


def test_tars_that_follow_one_another_in_a_file_are_read() -> None:
    shards = [tar([(f"{i}.png", RED), (f"{i}.txt", b"x")]) for i in range(3)]
    write(Path("raw/a.tar"), b"".join(shards))
    assert [r["id"] for r in run("webdataset", "raw/a.tar")[0]] == ["0", "1", "2"]


def test_names_and_links_in_a_tar_are_never_opened(project: Path) -> None:
    secret = project / "secret.txt"
    secret.write_text("secret")
    members = [("../../secret.png", RED), ("../../secret.txt", b"fine"), ("/abs/x.png", BLUE), ("/abs/x.txt", b"fine too")]
    write(Path("raw/a.tar"), tar(members, links={"0.txt": str(secret), "1.png": "/etc/passwd"}))
    rows, quarantine = run("webdataset", "raw/a.tar")
    assert [i["path"] for r in rows for i in r["images"]] == ["secret.png", "abs/x.png"]
    assert [(q["row"], q["reason"]) for q in quarantine] == [(3, "image_path"), (4, "image_path")]
    assert "secret" not in json.dumps([said(r) for r in rows])


# -- parquet ---------------------------------------------------------------------------------------------------------------


def test_parquet_as_on_the_hub_is_read_by_its_usual_columns() -> None:
    turns = pa.list_(pa.struct([("from", pa.string()), ("value", pa.string())]))
    schema = pa.schema([("id", pa.string()), ("image", HF_IMAGE), ("conversations", turns), ("data_source", pa.string())])
    talk = [{"from": "human", "value": "<image>\n?"}, {"from": "gpt", "value": "Red."}]
    write(
        Path("raw/onevision.parquet"), parquet([{"id": "x", "image": {"bytes": RED, "path": "../up/x.png"}, "conversations": talk, "data_source": "s"}], schema)
    )
    (sample,) = run("parquet", "raw/onevision.parquet")[0]
    assert (sample["id"], said(sample)) == ("x", ["<image>\n?", "Red."])
    assert sample["images"] == [{"bytes": RED, "path": "up/x.png"}]

    texts = [{"user": "Which?", "assistant": "Both.", "source": "s"}, {"user": "Sure?", "assistant": "Yes.", "source": "s"}]
    schema = pa.schema([("images", pa.list_(HF_IMAGE)), ("texts", pa.list_(pa.struct([(n, pa.string()) for n in ("user", "assistant", "source")])))])
    write(Path("raw/cauldron.parquet"), parquet([{"images": [{"bytes": RED, "path": None}, {"bytes": BLUE, "path": None}], "texts": texts}], schema))
    (sample,) = run("parquet", "raw/cauldron.parquet")[0]
    assert said(sample) == ["<image>\n<image>\nWhich?", "Both.", "Sure?", "Yes."]
    assert shown(sample) == [RED, BLUE]

    write(Path("raw/captions.parquet"), parquet([{"jpg": RED, "txt": "red", "width": 6}, {"jpg": None, "txt": "text alone", "width": None}]))
    assert [said(r) for r in run("parquet", "raw/captions.parquet")[0]] == [["<image>", "red"], ["", "text alone"]]

    asked = parquet([{"image": RED, "question": "How many?", "answer": 3, "messages": None}])
    write(Path("raw/vqa.parquet"), asked)
    assert said(run("parquet", "raw/vqa.parquet")[0][0]) == ["<image>\nHow many?", "3"]


def test_conversations_that_are_json_text_and_pictures_by_path_are_read_too() -> None:
    talk = json.dumps([{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}])
    write(Path("raw/a.parquet"), parquet([{"image": "a.png", "messages": talk}, {"image": "a.png", "messages": "[{"}]))
    rows, quarantine = run("parquet", "raw/a.parquet", images="raw/images")
    assert (shown(rows[0]), said(rows[0])) == ([RED], ["<image>\n?", "!"])
    assert [(q["row"], q["reason"]) for q in quarantine] == [(2, "broken_json")]


def test_a_path_beside_missing_bytes_is_not_opened() -> None:
    schema = pa.schema([("image", HF_IMAGE), ("caption", pa.string())])
    write(Path("raw/a.parquet"), parquet([{"image": {"bytes": None, "path": "raw/images/a.png"}, "caption": "x"}], schema))
    assert [q["reason"] for q in run("parquet", "raw/a.parquet", images="raw/images")[1]] == ["image_missing"]


@pytest.mark.parametrize(
    ("columns", "words"), [({}, "no column of conversations, questions or captions; found: 'bild', 'label'"), ({"caption": "titel"}, "no column 'titel'")]
)
def test_a_parquet_whose_columns_are_not_known_ends_with_those_it_has(columns: dict[str, str], words: str) -> None:
    write(Path("raw/a.parquet"), parquet([{"bild": RED, "label": 1}]))
    with pytest.raises(DataError, match=words):
        run("parquet", "raw/a.parquet", columns=columns)


# -- base64 and vlmevalkit -------------------------------------------------------------------------------------------------


def test_the_jsonl_of_the_points_demo_is_read() -> None:
    talk = [{"from": "human", "value": "<image>?"}, {"from": "gpt", "value": "Blue."}]
    rows = [
        {"image": b64(RED), "caption": "a red one"},
        {"image": [f"data:image/png;base64,{b64(BLUE)}"], "conversations": talk},
        {"image": "a.png", "caption": "x"},
    ]
    write(Path("raw/demo.jsonl"), rows)
    samples, quarantine = run("base64", "raw/demo.jsonl")
    assert [(shown(s), said(s)) for s in samples] == [([RED], ["<image>", "a red one"]), ([BLUE], ["<image>?", "Blue."])]
    assert [q["reason"] for q in quarantine] == ["image_base64"]
    assert len({s["id"] for s in samples}) == 2


def test_a_benchmark_table_becomes_the_questions_that_an_evaluation_puts() -> None:
    rows = [
        {"index": "7", "image": "9", "question": "Which?", "A": "red", "B": "blue", "answer": "B", "hint": "Look."},
        {"index": "8", "image": "", "question": "红还是蓝？", "A": "红", "B": "蓝", "answer": "A", "hint": ""},
        {"index": "9", "image": b64(BLUE), "question": "Color?", "A": "", "B": "", "answer": "blue", "hint": ""},
        {"index": "10", "image": str([b64(RED), b64(BLUE)]), "question": "Both?", "A": "", "B": "", "answer": "yes", "hint": ""},
        {"index": "11", "image": "12", "question": "None?", "A": "", "B": "", "answer": "yes", "hint": ""},
        {"index": "12", "image": "", "question": "None?", "A": "", "B": "", "answer": "", "hint": ""},
    ]
    write(Path("raw/bench.tsv"), tsv(rows))
    samples, quarantine = run("vlmevalkit", "raw/bench.tsv", language=None)
    letters = "Answer with the option's letter from the given choices directly."
    assert [said(s) for s in samples] == [
        [f"<image>\nLook.\nWhich?\nA. red\nB. blue\n{letters}", "B"],
        ["红还是蓝？\nA. 红\nB. 蓝\n请直接回答选项字母。", "A"],
        ["<image>\nColor?", "blue"],
        ["<image>\n<image>\nBoth?", "yes"],
    ]
    assert [shown(s) for s in samples] == [[BLUE], [], [BLUE], [RED, BLUE]]
    assert [(s["id"], s["language"]) for s in samples] == [("7", "en"), ("8", "zh"), ("9", "en"), ("10", "en")]
    assert [(q["row"], q["id"], q["reason"]) for q in quarantine] == [(5, "11", "image_missing"), (6, "12", "no_answer")]
    write(Path("raw/semicolons.tsv"), tsv(rows, ";"))
    assert [said(s) for s in run("vlmevalkit", "raw/semicolons.tsv", language=None)[0]] == [said(s) for s in samples]


# -- files -----------------------------------------------------------------------------------------------------------------


def captions(*texts: str) -> list[dict[str, str]]:
    return [{"id": t, "caption": t} for t in texts]


def test_a_folder_and_a_pattern_mean_their_files_in_the_order_of_their_names() -> None:
    write(Path("raw/web/b.jsonl"), captions("b"))
    write(Path("raw/web/a/2.jsonl.gz"), captions("a2"))
    write(Path("raw/web/a/10.jsonl"), captions("a10"))
    write(Path("raw/web/.hidden.jsonl"), captions("hidden"))
    write(Path("raw/web/notes.txt"), "no rows")
    assert [r["id"] for r in run("messages", "raw/web")[0]] == ["a10", "a2", "b"]
    assert [r["id"] for r in run("messages", "raw/web/*.jsonl")[0]] == ["hidden", "b"]
    assert [r["id"] for r in run("messages", "raw/*/a/*.jsonl*")[0]] == ["a10", "a2"]
    with pytest.raises(DataError, match=r"raw/web/\*\.tar: not one file"):
        run("messages", "raw/web/*.tar")


def test_ids_are_unique_over_all_files_and_the_quarantine_names_the_file() -> None:
    write(Path("raw/web/a.jsonl"), captions("x"))
    write(Path("raw/web/b.jsonl"), captions("y", "x"))
    rows, quarantine = run("messages", "raw/web")
    assert [r["id"] for r in rows] == ["x", "y"]
    assert [(q["file"], q["row"], q["reason"]) for q in quarantine] == [("raw/web/b.jsonl", 2, "duplicate_id")]


def test_a_file_that_breaks_off_is_one_row_of_quarantine_and_the_others_go_on() -> None:
    whole = tar([(f"{i}.{end}", content) for i in range(4) for end, content in (("png", RED), ("txt", b"x"))])
    write(Path("raw/web/a.tar"), whole[: 512 * 7])
    write(Path("raw/web/b.tar"), tar([("9.png", RED), ("9.txt", b"x")]))
    rows, quarantine = run("webdataset", "raw/web")
    assert [r["id"] for r in rows] == ["0", "9"]
    assert [(q["file"], q["row"], q["reason"]) for q in quarantine] == [("raw/web/a.tar", 2, "broken_file")]


def test_when_no_file_can_be_read_whole_the_step_ends_with_the_first() -> None:
    write(Path("raw/web/a.tar"), b"hello" * 200)
    write(Path("raw/web/b.tar"), b"")
    with pytest.raises(DataError, match=r"raw/web/a\.tar: not a tar"):
        run("webdataset", "raw/web")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"path": "*.json"}, "a pattern needs a folder"),
        ({"path": "s3://bucket*/x"}, "a pattern needs a folder, or a bucket"),
        ({"path": "a.json", "images": "raw/*"}, "expected a folder"),
        ({"path": "a.json", "columns": {"caption": "x"}}, "fixed names"),
        ({"path": "a.json", "format": "csv"}, "llava"),
    ],
)
def test_a_source_that_cannot_be_is_refused_with_its_recipe(source: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Source.model_validate(source)
