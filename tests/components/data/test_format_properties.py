"""What holds for any content: a row is a sample or refused with a known reason, a file is read or refused, and what was written comes back."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from components.data.canonical import IMAGE_MARK
from components.data.formats.reader import Draft, Embedded
from components.data.formats.table import FORMATS
from components.data.quarantine import REASONS, FileError, RowError
from components.recipe.data import Columns, Format
from tests.components.data.user_files import b64, parquet, png, tar, tsv

MODEST = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
PART = st.fixed_dictionaries({"type": st.sampled_from(["text", "image", "image_url", "audio"])}, optional={"text": JSON, "image": JSON, "image_url": JSON})
TURN = st.dictionaries(st.sampled_from(["role", "from", "content", "value", "user", "assistant"]), JSON | st.lists(PART, max_size=3), max_size=4) | JSON
NAMES = ["id", "image", "images", "messages", "conversations", "texts", "question", "answer", "caption", "text", "language", "license", "video"]
ROW = st.dictionaries(st.sampled_from(NAMES), JSON | st.lists(TURN, max_size=4), max_size=6) | JSON
CHARACTERS = st.characters(blacklist_categories=["Cs"], blacklist_characters="\0")
WORDS = st.text(CHARACTERS, min_size=1, max_size=30).filter(lambda t: t.strip() and IMAGE_MARK not in t)
TALK = st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=3)
SUFFIX: dict[Format, str] = {"llava": ".json", "messages": ".jsonl", "base64": ".jsonl", "webdataset": ".tar", "parquet": ".parquet", "vlmevalkit": ".tsv"}


def drafts(form: Format, file: Path) -> list[Draft | RowError]:
    """What becomes of every row."""
    reader, found = FORMATS[form](Columns()), []
    for _, row in reader.rows(file):
        try:
            found.append(row if isinstance(row, RowError) else reader.draft(row))
        except RowError as error:
            found.append(error)
    return found


def outcome(work: Callable[[], Any]) -> Any:
    """What it gives, or the refusal; any other error fails the test."""
    try:
        return work()
    except (RowError, FileError) as error:
        return error


@pytest.mark.parametrize("form", ["messages", "base64", "parquet"])
@given(row=ROW)
@MODEST
def test_any_row_is_a_whole_draft_or_refused_with_a_known_reason(form: Format, row: Any) -> None:
    draft = outcome(lambda: FORMATS[form](Columns()).draft(row if form != "parquet" or isinstance(row, dict) else {}))
    if not isinstance(draft, Draft):
        assert isinstance(draft, RowError)
        assert draft.reason in REASONS
        return
    assert [m["role"] for m in draft.messages] == ["user", "assistant"] * (len(draft.messages) // 2)
    assert all(m["content"].strip() and m["content"].encode() for m in draft.messages[1::2])
    assert sum(m["content"].count(IMAGE_MARK) for m in draft.messages) == len(draft.images)


@pytest.mark.parametrize("form", list(FORMATS))
@given(content=st.binary(max_size=400), packed=st.booleans(), whole=st.booleans())
@example(content=b'index\tquestion\tanswer\n\x00\t\r\n"', packed=False, whole=False)
@MODEST
def test_any_bytes_are_read_or_refused(form: Format, content: bytes, packed: bool, whole: bool, tmp_path: Path) -> None:
    file = tmp_path / f"any{SUFFIX[form]}"
    start = {"webdataset": tar([("0.png", png())])[:1024], "vlmevalkit": b"index\tquestion\tanswer\n"}.get(form, b"") if whole else b""
    file.write_bytes(gzip.compress(start + content) if packed else start + content)
    found = outcome(lambda: drafts(form, file))
    if isinstance(found, FileError):
        assert str(tmp_path) not in str(found)
        return
    assert all(d.reason in REASONS for d in found if isinstance(d, RowError))


@given(talks=st.lists(TALK, min_size=1, max_size=4))
@MODEST
def test_a_conversation_comes_back_from_every_format_that_can_hold_it(talks: list[list[tuple[str, str]]], tmp_path: Path) -> None:
    rows = [[t for q, a in talk for t in ({"from": "human", "value": q}, {"from": "gpt", "value": a})] for talk in talks]
    expected = [[f"{IMAGE_MARK}\n{r[0]['value']}", *(t["value"] for t in r[1:])] for r in rows]
    openai = [[{"role": ("user", "assistant")[i % 2], "content": t["value"]} for i, t in enumerate(r)] for r in rows]
    files: dict[Format, bytes] = {
        "messages": "\n".join(json.dumps({"image": "a.png", "messages": r}) for r in openai).encode(),
        "base64": "\n".join(json.dumps({"image": b64(png()), "conversations": r}) for r in rows).encode(),
        "parquet": parquet([{"image": png(), "conversations": r} for r in rows]),
        "webdataset": tar([(f"{i}.{end}", c) for i, r in enumerate(rows) for end, c in (("png", png()), ("json", json.dumps(r).encode()))]),
    }
    for form, content in files.items():
        (tmp_path / f"a{SUFFIX[form]}").write_bytes(content)
        found = drafts(form, tmp_path / f"a{SUFFIX[form]}")
        assert [[m["content"] for m in d.messages] if isinstance(d, Draft) else d for d in found] == expected
        assert all(d.images == ["a.png"] or isinstance(d.images[0], Embedded) for d in found if isinstance(d, Draft))


@given(rows=st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=5))
@MODEST
def test_cells_with_tabs_quotes_and_line_breaks_come_back_from_a_table(rows: list[tuple[str, str]], tmp_path: Path) -> None:
    assume(not any("\r" in cell for row in rows for cell in row))  # an end of a line where the table does not quote it
    file = tmp_path / "a.tsv"
    file.write_bytes(tsv([{"index": str(i), "question": q, "answer": a} for i, (q, a) in enumerate(rows)]).encode())
    assert [[m["content"] for m in d.messages] for d in drafts("vlmevalkit", file) if isinstance(d, Draft)] == [list(r) for r in rows]
