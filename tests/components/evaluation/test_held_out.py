"""Held-out rows as questions: every turn one of its own, in its own language, and only of rows that are held out."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from components.data.canonical import SCHEMA, write_shards
from components.data.encode import read_split
from components.data.held_out import split_of
from components.errors import DataError
from components.evaluation.held_out import held_out_questions
from components.recipe.held_out import HeldOut
from components.step import Step
from tests.components.evaluation.tsv import png

TURNS = [("<image>\nWhat color is it?", "red"), ("它是什么颜色？", "红色")]


def row(number: int, turns: list[tuple[str, str]], images: list[bytes], language: str = "zh") -> dict[str, Any]:
    messages = [{"role": role, "content": text} for turn in turns for role, text in zip(("user", "assistant"), turn, strict=True)]
    pictures = [{"bytes": image, "path": "x"} for image in images]
    return {
        "id": f"r{number}",
        "images": pictures,
        "messages": messages,
        "source": "train",
        "language": language,
        "category": "qa",
        "license": "",
        "verdicts": [],
    }


def step(rows: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **held: int) -> Step:
    monkeypatch.chdir(tmp_path)
    write_shards(pa.Table.from_pylist(rows, schema=SCHEMA), Path("out/curate/data/train"), 1000)
    return Step("soup", {"held_out": held, "stages": {"vision": {}, "instruct": {"data": {"sources": ["train"]}}}})


def test_every_turn_is_asked_by_itself_about_the_rows_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row(i, TURNS, [png("red", 20 + i)]) for i in range(40)]
    config = HeldOut(selection=30, report=20)
    made = step(rows, tmp_path, monkeypatch, selection=30, report=20)
    held = [r for r in rows if split_of(r, config) == "selection"]
    questions = held_out_questions(made, "selection")
    assert [(q.question, q.answer, q.language) for q in questions] == [("What color is it?", "red", "en"), ("它是什么颜色？", "红色", "zh")] * len(held)
    assert [q.image for q in questions] == [r["images"][0]["bytes"] for r in held for _ in TURNS]
    assert [q.index for q in questions] == list(range(2 * len(held)))
    assert {q.kind for q in questions} == {"qa"}
    other = {q.image for q in held_out_questions(made, "report")}
    assert other
    assert not other & {q.image for q in questions}


def test_a_row_that_the_mixture_repeats_is_asked_once_and_learned_as_often_as_it_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row(i, TURNS, [png("red", 20 + i)]) for i in range(20)]
    once = held_out_questions(step(rows, tmp_path, monkeypatch, selection=50), "selection")
    assert held_out_questions(step([r for r in rows for _ in range(3)], tmp_path, monkeypatch, selection=50), "selection") == once
    assert len(read_split([Path("out/curate/data/train")], "train", HeldOut(selection=50))) == 3 * (len(rows) - len(once) // len(TURNS))


def test_a_language_that_the_script_cannot_tell_stays_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row(i, [("<image>\nquelle couleur ?", "rouge")], [png("red", 20 + i)], "fr") for i in range(20)]
    assert {q.language for q in held_out_questions(step(rows, tmp_path, monkeypatch, selection=50), "selection")} == {"fr"}


def test_rows_of_two_pictures_are_left_out_and_text_is_asked_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two = [row(i, [("<image><image>\nSame?", "yes")], [png("red", 20 + i), png("blue")]) for i in range(20)]
    text = [row(100 + i, [("Why?", "So.")], []) for i in range(20)]
    questions = held_out_questions(step(two + text, tmp_path, monkeypatch, selection=50), "selection")
    assert questions
    assert {(q.question, q.image) for q in questions} == {("Why?", None)}


def test_no_held_out_row_at_all_names_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"held_out\.report: no row of train is held out: raise it"):
        held_out_questions(step([], tmp_path, monkeypatch, report=10), "report")
