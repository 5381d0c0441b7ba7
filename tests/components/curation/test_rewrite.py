"""Rewrites of real shards: what each one does to which rows, what it leaves alone, and what becomes of rows that an annotator fails at."""

import json
import re
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from components.curation import rewrite
from components.curation.prompts import prompt
from components.data.canonical import QUARANTINE_SCHEMA, read_shards, shards
from components.step import Step
from tests.components.curation.corpora import ingested, picture
from tests.components.curation.corpora import row as plain_row
from tests.fakes.chat_server import ChatServer


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STOCKPOT_ANSWERS", str(tmp_path / "answers"))
    return tmp_path


def row(row_id: str, question: str, answer: str, *, value: int | None = 1, language: str = "en") -> dict:
    images = [] if value is None else [picture(value, size=(20, 20))]
    marks = "<image>\n" * len(images)
    messages = [{"role": "user", "content": f"{marks}{question}"}, {"role": "assistant", "content": answer}]
    return {**plain_row(row_id, images=images, language=language), "messages": messages}


def run(rows: list[dict], *sections: dict, refused: int = 0, seed: int = 0) -> tuple[list[dict], dict]:
    """Rewritten rows and the summary."""
    ingested("a", rows, refused)
    Path("out/rewrite-a/data").mkdir(parents=True, exist_ok=True)
    rewrite.run(Step("rewrite-a", {"seed": seed, "sources": {"a": {"path": "raw.json", "rewrites": list(sections)}}}))
    return read_shards(Path("out/rewrite-a/data")).to_pylist(), json.loads(Path("out/rewrite-a/summary.json").read_text())


def said(rows: list[dict]) -> list[tuple[str, str]]:
    return [tuple(m["content"] for m in row["messages"]) for row in rows]


def at(server: ChatServer) -> dict:
    return {"base_url": server.base_url, "model": "judge"}


def quarantine() -> list[dict]:
    return pq.read_table("out/rewrite-a/data/quarantine.parquet", schema=QUARANTINE_SCHEMA).to_pylist()


TWO_TURNS = {**row("two", "What?", "a"), "messages": [m for q in "ab" for m in ({"role": "user", "content": q}, {"role": "assistant", "content": "x"})]}


def test_questions_are_drawn_by_the_seed_from_the_pool_of_the_rows_language():
    rows = [row(f"{i:03}", "old?", "图片" if i % 2 else "a picture", language="zh" if i % 2 else "en") for i in range(400)]
    rows += [
        row("accents", "vieux?", "图片里有树", language="fr"),
        row("other", "alt?", "ein Bild", language="de"),
        row("text", "hm?", "so", value=None),
        TWO_TURNS,
    ]
    found, summary = run(rows, {"kind": "prompt_pool"})
    pools = {language: set(prompt("prompt_pool", language).lines) for language in ("en", "zh")}
    drawn = [question.removeprefix("<image>\n") for question, _ in said(found[:400])]
    assert all(question in pools["zh" if i % 2 else "en"] for i, question in enumerate(drawn))
    assert Counter(drawn).keys() == pools["en"] | pools["zh"]
    assert min(Counter(drawn).values()) > 8  # of 20 on average
    assert said(found[400:402])[0][0].removeprefix("<image>\n") in pools["zh"]
    assert said(found[400:402])[1][0].removeprefix("<image>\n") in pools["en"]
    assert [r["messages"] for r in found[402:]] == [r["messages"] for r in rows[402:]]
    assert [r["verdicts"] for r in found[402:]] == [[], []]
    [verdict] = found[0]["verdicts"]
    assert (verdict["filter"], verdict["action"], verdict["reason"], verdict["before"]) == ("prompt_pool", "fix", "", rows[0]["messages"])
    assert summary["rewrites"][0] | {"version": "", "prompts": []} == {
        "kind": "prompt_pool", "version": "", "annotators": [], "prompts": [], "seen": 404, "changed": 402, "passed": 2, "unjudged": 0, "quarantined": 0,
    }  # fmt: skip
    again, _ = run(rows, {"kind": "prompt_pool"})
    other, _ = run(rows, {"kind": "prompt_pool"}, seed=1)
    assert said(again) == said(found)
    assert said(other) != said(found)


def test_ocr_questions_come_from_their_own_pool():
    found, _ = run([row(f"{i}", "?", "文字", language="zh") for i in range(50)] + [row("e", "?", "words")], {"kind": "ocr_questions"})
    assert {q.removeprefix("<image>\n") for q, _ in said(found[:50])} <= set(prompt("ocr_questions", "zh").lines)
    assert said(found[50:])[0][0].removeprefix("<image>\n") in prompt("ocr_questions", "en").lines
    assert said(found)[0][1] == "文字"


def test_the_pools_have_ten_different_questions_each():
    for name in ("prompt_pool", "ocr_questions"):
        for language in ("en", "zh"):
            assert len(set(prompt(name, language).lines)) == 10


def merger(text: str, pictures: list) -> str:
    """A captioner that names the colour, and a merger that puts the two sentences together."""
    if pictures:
        return f"a picture of value {pictures[0].getpixel((0, 0))[0]}"
    original, generated = re.search(r"Sentence 1: (.*) – Sentence 2: (.*) Merged Sentence:$", text).groups()
    return f"{original}, which is {generated}"


def test_captions_are_merged_with_what_a_model_sees():
    rows = [row("1", "Describe.", "Mount\nFuji  in May", value=7), row("2", "Describe.", "a dog", value=9), row("text", "Who?", "me", value=None), TWO_TURNS]
    with ChatServer(merger, sees=True) as server:
        found, summary = run(rows, {"kind": "capfusion", "vlm": at(server)})
        prompts = [r["messages"][0]["content"] for r in server.requests]
    assert said(found)[:2] == [
        ("<image>\nDescribe.", "Mount Fuji in May, which is a picture of value 7"),
        ("<image>\nDescribe.", "a dog, which is a picture of value 9"),
    ]
    assert [r["messages"] for r in found[2:]] == [r["messages"] for r in rows[2:]]
    assert {p[1]["text"] for p in prompts if isinstance(p, list)} == {"Please briefly describe the image in English"}
    assert summary["rewrites"][0]["annotators"] == [f"judge at {server.base_url}"]
    assert found[0]["images"] == rows[0]["images"]


def test_a_caption_in_another_language_than_the_row_is_none_and_rows_in_further_languages_pass():
    rows = [row("1", "?", "一只狗", language="zh"), row("2", "?", "a dog", value=2), row("3", "?", "un chien", value=3, language="fr")]
    with ChatServer(lambda *_: "a brown dog", sees=True) as server:
        found, summary = run(rows, {"kind": "capfusion", "vlm": at(server)})
    assert [answer for _, answer in said(found)] == ["一只狗", "a brown dog", "un chien"]
    assert [[v["reason"] for v in r["verdicts"]] for r in found] == [["unjudged"], [""], []]
    assert summary["rewrites"][0]["passed"] == 1


def test_a_merger_that_leaves_traces_of_the_prompt_is_none_and_other_languages_are_asked_in_theirs():
    def sloppy(text: str, pictures: list) -> str:
        return "一只狗" if pictures else "合并: 一只小狗" if "小狗" in text else "Sentence 1 and Sentence 2"

    with ChatServer(sloppy, sees=True) as server:
        found, _ = run([row("1", "?", "a dog"), row("2", "？", "小狗", value=2, language="zh")], {"kind": "capfusion", "vlm": at(server)})
        texts = [p if isinstance(p := r["messages"][0]["content"], str) else p[1]["text"] for r in server.requests]
    assert said(found) == [("<image>\n?", "a dog"), ("<image>\n？", "合并: 一只小狗")]
    assert [r["verdicts"][0]["reason"] for r in found] == ["unjudged", ""]
    assert "请用中文简要描述这张图片" in texts


CHINESE = {"What color is it?": "是什么颜色？", "It is red.": "它是红色的。", "Name the brand.": "说出品牌。", "Nikon": "Nikon", "in": "在", "here?": "这里？"}


def translator(text: str) -> str:
    return CHINESE.get(text.removeprefix("Text for translation: "), "I cannot translate that.")


def test_messages_are_translated_around_the_marks_and_the_language_changes():
    rows = [
        row("1", "What color is it?", "It is red."),
        row("brand", "Name the brand.", "Nikon"),
        row("option", "What color is it?", "B"),
        row("number", "What color is it?", "42"),
        row("done", "是什么颜色？", "红色", language="zh"),
        row("french", "Quelle couleur?", "rouge", language="fr"),
    ]
    rows.append(
        {**row("inside", "", "It is red."), "messages": [{"role": "user", "content": "in <image> here?"}, {"role": "assistant", "content": " It is red.\n"}]}
    )
    with ChatServer(translator) as server:
        found, _ = run(rows, {"kind": "translate", "annotator": at(server), "to": "zh"})
        asked = [r["messages"] for r in server.requests]
    assert said(found) == [
        ("<image>\n是什么颜色？", "它是红色的。"),
        ("<image>\n说出品牌。", "Nikon"),
        ("<image>\n是什么颜色？", "B"),
        ("<image>\n是什么颜色？", "42"),
        ("<image>\n是什么颜色？", "红色"),
        ("<image>\nQuelle couleur?", "rouge"),
        ("在 <image> 这里？", " 它是红色的。\n"),
    ]
    assert [r["language"] for r in found] == ["zh", "zh", "zh", "zh", "zh", "fr", "zh"]
    assert found[0]["verdicts"][0]["before"] == rows[0]["messages"]
    assert len(asked) == len(CHINESE)  # equal texts once
    assert {m[0]["role"] for m in asked} == {"system"}
    assert "translate the following English text into Chinese" in asked[0][0]["content"]


def test_chinese_rows_are_translated_to_english_and_what_stays_chinese_is_refused():
    english = {"是什么颜色？": "What color is it?", "红色的": "red", "你好": "你好"}
    rows = [row("1", "是什么颜色？", "红色的", language="zh"), row("2", "是什么颜色？", "你好", language="zh"), row("en", "x", "y")]
    with ChatServer(lambda text: english.get(text.removeprefix("Text for translation: "), "???")) as server:
        section = {"kind": "translate", "annotator": at(server), "to": "en"}
        found, summary = run(rows, section, refused=1)
        assert said(found) == [("<image>\nWhat color is it?", "red"), ("<image>\nx", "y")]
        ours = {"source": "a", "file": "out/ingest-a/data/part-00000.parquet", "row": 2, "id": "2", "reason": "unjudged"}
        assert quarantine()[0]["reason"] == "no_answer"  # ingest's
        assert quarantine()[1] == {**ours, "detail": "translate: a message without a translation that can be used"}
        assert (summary["rows_in"], summary["rows_out"], summary["quarantined"]) == (3, 2, 1)
        found, _ = run(rows, {**section, "unjudged": "keep"})
    assert said(found)[1] == ("<image>\n是什么颜色？", "你好")
    assert (found[1]["verdicts"][0]["action"], found[1]["verdicts"][0]["reason"]) == ("keep", "unjudged")


def test_answers_are_a_models_that_sees_the_picture_and_broken_pictures_are_not_sent():
    rows = [row("1", "How much?", "old", value=5), {**row("2", "How much?", "old"), "images": [{"bytes": picture(1)[:40], "path": "cut.png"}]}]
    with ChatServer(lambda text, pictures: f"{text} {pictures[0].getpixel((0, 0))[0]}", sees=True) as server:
        section = {"kind": "vlm_answers", "annotator": at(server)}
        found, _ = run(rows, section)
        assert len(server.requests) == 1
        assert said(found) == [("<image>\nHow much?", "How much? 5"), ("<image>\nHow much?", "old")]
        assert found[1]["verdicts"][0]["reason"] == "unjudged"
        run(rows, {**section, "unjudged": "quarantine"})
    assert "cut.png" in quarantine()[0]["detail"]
    assert len(server.requests) == 1  # what was answered is not asked again


def test_rewrites_follow_one_another_and_each_leaves_its_verdict():
    with ChatServer(lambda text, pictures: "鲜红的颜色" if "image" in text else translator(text), sees=True) as server:
        CHINESE["a new answer"] = "新的回答"
        sections = [
            {"kind": "vlm_answers", "annotator": at(server)},
            {"kind": "prompt_pool"},
        ]
        found, summary = run([row("1", "Describe the image.", "old"), row("2", "Name it.", "x", value=3)], *sections)
    assert [v["filter"] for v in found[0]["verdicts"]] == ["vlm_answers", "prompt_pool"]
    assert found[0]["verdicts"][1]["before"] == [{"role": "user", "content": "<image>\nDescribe the image."}, {"role": "assistant", "content": "鲜红的颜色"}]
    assert found[0]["messages"][0]["content"].removeprefix("<image>\n") in prompt("prompt_pool", "en").lines
    assert [line["seen"] for line in summary["rewrites"]] == [2, 2]


def test_the_same_rows_in_other_shards_and_a_second_run_give_the_same_bytes(monkeypatch):
    rows = [row(f"{i}", "Describe.", f"caption {i}", value=i) for i in range(7)]
    with ChatServer(merger, sees=True) as server:
        sections = [{"kind": "capfusion", "vlm": at(server)}, {"kind": "prompt_pool"}]
        made = []
        for at_once in (64, 2, 64):
            monkeypatch.setattr(rewrite, "ROWS", at_once)
            run(rows, *sections)
            made.append([file.read_bytes() for file in shards(Path("out/rewrite-a/data"))])
        assert made[0] == made[1] == made[2]
        assert len(server.requests) == 14
