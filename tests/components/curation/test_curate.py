"""The curate step: rows end in exactly one place with their verdicts, counted, in order, as the same bytes every time."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.curation import curate
from components.curation.filter import RowFilter, verdicts
from components.curation.filters import FILTERS
from components.curation.row import Row
from components.data import draw, ingest
from components.data.canonical import read_shards
from components.errors import DataError, RecipeError
from components.step import Step
from tests.components.curation.corpora import ingested, picture, row, scorer
from tests.fakes.chat_server import ChatServer

BOTH = [{"kind": "image_validity"}, {"kind": "exact_duplicates"}]


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(sources: list[str], filters: list[dict], **config: object) -> dict:
    step = Step("curate", {"seed": 0, "sources": {s: {"path": "raw.json"} for s in sources}, "curation": {"filters": filters, **config}})
    shutil.rmtree(step.data.parent, ignore_errors=True)
    step.data.mkdir(parents=True)
    curate.run(step)
    return json.loads(step.side("counts.json").read_text())


def kept(source: str) -> list[dict]:
    return read_shards(Path("out/curate/data", source)).to_pylist()


def ids(rows: list[dict]) -> list[str]:
    return [r["id"] for r in rows]


def quarantine() -> list[dict]:
    return pq.read_table("out/curate/data/quarantine.parquet").to_pylist()


def files() -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(Path("out/curate").rglob("*")) if p.is_file()}


def corpus() -> None:
    whole = picture(9, "JPEG", (64, 48))
    rows = [row(f"a{i}", images=[picture(i)]) for i in range(7)]
    rows[2] = row("a2", images=[picture(1)])  # as a1
    rows[5] = row("a5", images=[whole[:-40]])
    ingested("a", rows, refused=2)
    ingested("b", [row("b0", images=[picture(3)], source="b"), row("b1", answer="blue", source="b"), row("b2", images=[whole], source="b")])


def test_every_row_ends_in_one_place_with_its_verdicts_and_is_counted(project):
    corpus()
    counts = run(["a", "b"], BOTH)
    assert (ids(kept("a")), ids(kept("b"))) == (["a0", "a1", "a3", "a4", "a6"], ["b1", "b2"])
    assert ids(kept("dropped")) == ["a2", "b0"]
    assert [(q["source"], q["reason"]) for q in quarantine()] == [("a", "no_answer"), ("a", "no_answer"), ("a", "image_truncated")]
    assert quarantine()[2] == {
        "source": "a",
        "file": "out/ingest-a/data/part-00001.parquet",
        "row": 3,
        "id": "a5",
        "reason": "image_truncated",
        "detail": quarantine()[2]["detail"],
    }
    assert "a5-0.png" in quarantine()[2]["detail"]
    keep = {"action": "keep", "score": None, "reason": "", "detail": "", "before": None}
    valid, first = {"filter": "image_validity", "version": "1"}, {"filter": "exact_duplicates", "version": "1"}
    assert kept("a")[0]["verdicts"] == [{**valid, **keep}, {**first, **keep}]
    repeated = {**keep, "action": "drop", "reason": "exact_duplicate", "detail": "as a/a1"}
    assert kept("dropped")[0]["verdicts"] == [{**valid, **keep}, {**first, **repeated}]
    rest = {"tagged": 0, "fixed": 0, "unjudged": 0, "threshold": None}
    assert counts == {
        "rows_in": 12,
        "rows_kept": 7,
        "quarantined": 3,
        "dropped": 2,
        "by_reason": {"exact_duplicate": 2, "image_truncated": 1, "no_answer": 2},
        "per_source": {
            "a": {"rows_in": 9, "rows_kept": 5, "quarantined": 3, "dropped": 1},
            "b": {"rows_in": 3, "rows_kept": 2, "quarantined": 0, "dropped": 1},
        },
        "filters": [
            {"kind": "image_validity", "version": "1", "seen": 10, "kept": 9, "dropped": 0, "quarantined": 1, **rest},
            {"kind": "exact_duplicates", "version": "1", "seen": 9, "kept": 7, "dropped": 2, "quarantined": 0, **rest},
        ],
    }


def test_sources_come_in_the_order_of_the_recipe_and_the_first_of_equal_rows_stays(project):
    corpus()
    run(["b", "a"], BOTH)
    assert (ids(kept("a")), ids(kept("b"))) == (["a0", "a1", "a4", "a6"], ["b0", "b1", "b2"])


def test_two_runs_give_the_same_bytes_and_kept_rows_keep_their_content(project):
    corpus()
    scorer(Path("out/llm/data"), ["red", "blue"])
    filters = [*BOTH, {"kind": "perplexity", "sources": ["a"], "keep_percent": 60}]
    run(["a", "b"], filters)
    first = files()
    run(["a", "b"], filters)
    assert files() == first
    before = {r["id"]: r for r in read_shards(Path("out/ingest-a/data")).to_pylist()}
    for r in kept("a"):
        assert {**r, "verdicts": []} == before[r["id"]]


def test_perplexity_ranks_what_the_filters_before_it_kept_and_its_sources_alone(project):
    corpus()
    scorer(Path("out/llm/data"), ["red", "blue"])
    counts = run(["a", "b"], [*BOTH, {"kind": "perplexity", "sources": ["a"], "keep_percent": 60}])
    assert ids(kept("a")) == ["a0", "a1", "a3"]  # 60 % of five equal texts: the first by id, in their old order
    assert ids(kept("b")) == ["b1", "b2"]
    last = counts["filters"][2]
    assert (last["seen"], last["kept"], last["dropped"], list(last["threshold"])) == (5, 3, 2, ["a/en"])
    assert kept("a")[0]["verdicts"][2]["score"] == last["threshold"]["a/en"] > 1
    assert [v["filter"] for v in kept("b")[0]["verdicts"]] == ["image_validity", "exact_duplicates"]
    assert counts["by_reason"]["high_perplexity"] == 2


def test_tagged_rows_stay_are_counted_and_carry_the_verdict(project, monkeypatch):
    rows = [row(f"a{i}", answer=("red", "blue", "green", "pink", "grey")[i % 5]) for i in range(10)]
    told = row("told")
    told["messages"][0]["content"] = "a red circle: what?"
    ingested("a", [*rows, told])
    with ChatServer(lambda text: next((o[0] for o in text.splitlines() if o[1:2] == "." and o[3:] in text.splitlines()[0]), "A")) as server:
        judged = {"kind": "text_answerable", "sources": ["a"], "judge": {"base_url": server.base_url, "model": "judge"}}
        counts = run(["a"], [judged, *BOTH])
        dropping = run(["a"], [{**judged, "action": "drop"}, *BOTH])
    first = counts["filters"][0]
    assert (first["seen"], first["kept"], first["tagged"], first["dropped"], first["unjudged"]) == (11, 11, 1, 0, 0)
    assert counts["by_reason"] == {"exact_duplicate": 5}
    assert (dropping["rows_kept"], dropping["by_reason"]) == (counts["rows_kept"] - 1, {"exact_duplicate": 5, "text_answerable": 1})
    assert [v["action"] for v in read_shards(Path("out/curate/data/dropped")).to_pylist()[-1]["verdicts"]] == ["drop"]


class Corrected(RowFilter):
    """Corrects a word."""

    kind = "corrected"
    version = "1"
    fact_type = pa.string()

    def fact(self, row: Row) -> str:
        return row.messages[1]["content"]

    def judge(self, rows: pa.Table) -> pa.Table:
        said = [[{"role": "user", "content": "What?"}, {"role": "assistant", "content": "red"}] if s == "rde" else None for s in rows["facts"].to_pylist()]
        actions = ["fix" if s else "keep" for s in said]
        return verdicts(actions, [None] * len(said), ["misspelt" if s else "" for s in said], messages=said)


@pytest.mark.parametrize("order", [["image_validity", "exact_duplicates"], ["exact_duplicates", "image_validity"]])
def test_a_fixed_row_stays_later_filters_see_what_it_says_now_and_it_carries_what_it_said(project, monkeypatch, order):
    monkeypatch.setitem(FILTERS, "image_validity", Corrected)
    ingested("a", [row("a0", "red"), row("a1", "blue"), row("a2", "rde"), row("a3", "rde"), row("a4", "green")])
    scorer(Path("out/llm/data"), ["red", "blue"])
    counts = run(["a"], [*({"kind": kind} for kind in order), {"kind": "perplexity", "sources": ["a"], "keep_percent": 100}])
    misspelt, right = row("", "rde")["messages"], row("", "red")["messages"]
    if order[0] == "image_validity":
        assert (ids(kept("a")), ids(kept("dropped"))) == (["a0", "a1", "a4"], ["a2", "a3"])
        fixed = kept("dropped")[0]
    else:
        assert (ids(kept("a")), ids(kept("dropped"))) == (["a0", "a1", "a2", "a4"], ["a3"])
        fixed = kept("a")[2]
        assert fixed["verdicts"][2]["score"] == kept("a")[0]["verdicts"][2]["score"]
    number = order.index("image_validity")
    assert fixed["messages"] == right
    assert fixed["verdicts"][number] == {
        "filter": "corrected",
        "version": "1",
        "action": "fix",
        "score": None,
        "reason": "misspelt",
        "detail": "",
        "before": misspelt,
    }
    assert [v["before"] for v in fixed["verdicts"][number + 1 :]] == [None] * len(fixed["verdicts"][number + 1 :])
    assert counts["filters"][number]["fixed"] == (2 if number == 0 else 1)


def test_no_filters_keep_everything(project):
    corpus()
    assert run(["a", "b"], [])["rows_kept"] == 10


def test_sources_without_rows_pass(project):
    ingested("a", [])
    scorer(Path("out/llm/data"), ["red"])
    counts = run(["a"], [*BOTH, {"kind": "perplexity", "sources": ["a"]}])
    assert counts["rows_in"] == counts["rows_kept"] == 0
    assert kept("a") == kept("dropped") == []


def test_the_quarantine_limit_stops_the_run_with_the_numbers(project):
    corpus()
    with pytest.raises(DataError, match=r"max_quarantine_percent: 3 of 12 rows .* more than 24 % \(no_answer 2, image_truncated 1\).*raw\.json, row 1"):
        run(["a", "b"], BOTH, max_quarantine_percent=24)
    assert run(["a", "b"], BOTH, max_quarantine_percent=25)["quarantined"] == 3


def test_a_missing_scorer_a_missing_input_and_a_taken_name_give_a_sentence(project):
    corpus()
    with pytest.raises(RecipeError, match="out/llm/data"):
        run(["a"], [{"kind": "perplexity", "sources": ["a"]}])
    with pytest.raises(RecipeError, match=r"out/ingest-c/data"):
        run(["c"], [])
    with pytest.raises(RecipeError, match=r"sources\.dropped"):
        run(["dropped"], [])
    Path("out/ingest-a/data/quarantine.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"quarantine\.parquet"):
        run(["a"], [])


@given(
    numbers=st.lists(st.integers(0, 5), max_size=12),
    damaged=st.sets(st.integers(0, 11)),
    shard_rows=st.integers(1, 5),
    refused=st.integers(0, 3),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_kept_does_not_depend_on_how_rows_are_sharded(project, numbers, damaged, shard_rows, refused):
    shutil.rmtree("out", ignore_errors=True)
    rows = [row(f"{i:02d}", images=[b"damaged" if i in damaged else picture(n)]) for i, n in enumerate(numbers)]
    ingested("a", rows, refused, shard_rows)
    counts = run(["a"], BOTH, shard_rows=3)
    first: dict[int, str] = {}
    for i, n in enumerate(numbers):
        if i not in damaged:
            first.setdefault(n, f"{i:02d}")
    assert ids(kept("a")) == sorted(first.values())
    assert counts["rows_in"] == len(numbers) + refused
    assert counts["rows_in"] == counts["rows_kept"] + counts["dropped"] + counts["quarantined"]
    assert sorted(ids(kept("a")) + ids(kept("dropped")) + [q["id"] for q in quarantine() if q["id"]]) == [r["id"] for r in rows]


def test_a_drawn_corpus_goes_through_draw_ingest_and_curate(project):
    config = {"train": 40, "selection": 2, "report": 2, "noise": {"duplicates": 3, "truncated": 2, "missing": 2, "unanswered": 2}}
    sources = {
        "captions": {"path": "out/draw/data/captions.json", "images": "out/draw/data/images"},
        "questions": {"path": "out/draw/data/questions.json", "images": "out/draw/data/images"},
    }
    for name, module in (("draw", draw), ("ingest-captions", ingest), ("ingest-questions", ingest)):
        step = Step(name, {"seed": 0, "draw": config, "sources": sources})
        step.data.mkdir(parents=True)
        module.run(step)
    counts = run(list(sources), BOTH)
    assert counts["by_reason"] == {"exact_duplicate": 3, "image_missing": 2, "image_truncated": 2, "no_answer": 2}
    assert counts["rows_kept"] == 80
    labels = [json.loads(line) for line in Path("out/draw/noise.jsonl").read_text().splitlines()]
    bad = {(label["source"], label["id"]) for label in labels}
    assert len(bad) == 9
    assert not bad & {(r["source"], r["id"]) for r in kept("captions") + kept("questions")}
