"""The data card: its numbers are those of the rows on disk, its bytes repeat, other people's text stays text; and the fate of every sample is told."""

import json
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.curation import curate
from components.curation.card.gallery import KEPT, PER_FILTER
from components.curation.card.groups import ATTRIBUTES
from components.curation.card.histogram import chart, histogram
from components.curation.why import fates
from components.data.canonical import read_rows, read_shard, read_shards, shards, write_shards
from components.errors import DataError
from components.pages.scale import BOTTOM, LEFT, RIGHT, TOP
from components.step import Step
from tests.components.curation.corpora import ingested, picture, row, scorer, table
from tests.components.evaluation.test_report import Page
from tests.components.evaluation.tsv import b64, write
from tests.components.evaluation.tsv import row as question

FILTERS = [
    {"kind": "image_validity"},
    {"kind": "text_length", "min": 1, "max": 2, "action": "tag"},
    {"kind": "exact_duplicates"},
    {"kind": "perplexity", "sources": ["a"], "keep_percent": 60},
]


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def corpus() -> None:
    rows = [row(f"a{i:02d}", answer="red and blue " * (i % 4), images=[picture(i)], language=["en", "zh"][i % 2]) for i in range(30)]
    rows[7] = row("a07", answer=rows[3]["messages"][1]["content"], images=[picture(3)])
    rows[9] = row("a09", images=[picture(9, "JPEG", (64, 48))[:-40]])
    rows[11] = row("a11", images=[picture(200)])
    ingested("a", rows, refused=2, shard_rows=8)
    ingested("b", [{**row(f"b{i}", answer=f"number {i}", source="b"), "category": "text"} for i in range(20)], shard_rows=8)
    write(Path("shapes.tsv"), [question(1, b64(picture(200)), question="which?")])
    scorer(Path("out/llm/data"), ["red", "blue"])


def run(sources: tuple[str, ...] = ("a", "b"), filters: list[dict] | None = None, **config: object) -> dict:
    params = {"seed": 0, "sources": {s: {} for s in sources}, "curation": {"filters": FILTERS if filters is None else filters, **config}}
    evaluation = {"evaluate": {"benchmarks": {"shapes": {"path": "shapes.tsv"}}}} if Path("shapes.tsv").exists() else {}
    step = Step("curate", {**params, **evaluation})
    shutil.rmtree(step.data.parent, ignore_errors=True)
    step.data.mkdir(parents=True)
    curate.run(step)
    return json.loads(step.side("card.json").read_text(encoding="utf-8"))


def page() -> Page:
    return Page(Path("out/curate/card.html").read_text(encoding="utf-8"))


def on_disk() -> list[tuple[str, dict]]:
    """(folder, row) of all rows that curation wrote."""
    return [(f.name, r) for f in sorted(Path("out/curate/data").iterdir()) if f.is_dir() for r in read_shards(f).to_pylist()]


def test_the_card_counts_what_lies_on_disk(project):
    corpus()
    card = run()
    counts = json.loads(Path("out/curate/counts.json").read_text())
    assert {k: card[k] for k in ("rows_in", "rows_kept", "dropped", "quarantined")} == {
        k: counts[k] for k in ("rows_in", "rows_kept", "dropped", "quarantined")
    }
    assert [f["kind"] for f in card["filters"]] == ["decontamination", "image_validity", "text_length", "exact_duplicates", "perplexity"]
    kept = [r for folder, r in on_disk() if folder != "dropped"]
    assert card["rows_written"] == len(kept)
    for attribute in ATTRIBUTES:
        assert {k: n for k, n in card["kept"][attribute].items() if n} == Counter(r[attribute] for r in kept)
        out = Counter()
        for f in card["filters"]:
            out.update(f["out_by"][attribute])
        for value, n in card["ingested"][attribute].items():
            assert n == out[value] + card["kept"][attribute][value]
    assert card["refused_by_ingest"] == {"a": 2}
    for before, after in zip(card["filters"][:3], card["filters"][1:], strict=False):
        gone = Counter(before["out_by"]["source"])
        assert after["seen_by"]["source"] == {s: n - gone[s] for s, n in before["seen_by"]["source"].items()}
    assert card["filters"][0]["report"] == {"benchmarks": {"shapes": {"questions": 1, "pixels": 1, "picture": 0, "text": 0}}}


def test_histograms_hold_every_score_and_its_threshold(project):
    corpus()
    card = run()
    last = card["filters"][-1]
    assert set(last["scores"]) == {"a/en", "a/zh"} == set(last["threshold"])
    for group, h in last["scores"].items():
        assert sum(h["kept"]) + sum(h["out"]) == last["seen_by"]["language"][group[-2:]]
        assert h["threshold"] == pytest.approx(last["threshold"][group], rel=1e-5)
    assert sum(sum(h["out"]) for h in last["scores"].values()) == last["dropped"]


def test_answers_are_measured_in_the_scorers_tokens_or_in_words(project):
    corpus()
    with_model = run()["answers"]
    assert with_model["unit"] == "tokens"
    answers = [m["content"].strip() for folder, r in on_disk() if folder == "a" for m in r["messages"] if m["role"] == "assistant"]
    assert with_model["sources"]["a"]["answers"] == len(answers)
    assert with_model["sources"]["a"]["characters"]["sum"] == sum(map(len, answers))
    assert with_model["sources"]["a"]["words"]["max"] == max(len(a.split()) for a in answers)
    without = run(filters=FILTERS[:3])["answers"]
    assert without["unit"] == "words"
    assert "tokens" not in without["sources"]["a"]


def test_the_page_shows_every_part_and_its_bytes_repeat(project):
    corpus()
    first = run(mixture={"kind": "sqrt", "rows": 20})
    files = [Path("out/curate", name).read_bytes() for name in ("card.html", "card.json")]
    assert run(mixture={"kind": "sqrt", "rows": 20}) == first
    assert [Path("out/curate", name).read_bytes() for name in ("card.html", "card.json")] == files
    shown = page()
    headings = ("Data card", "Step by step", "By source", "By language", "By category", "Mixture", "Decontamination", "Scores and lengths", "Answers", "Kept")
    for said in (*headings, "Perplexity: dropped", "Text_length: tagged", "Quarantine", "image_truncated", "the picture is cut off", "a09-0.png", "as a/a03"):
        assert said in shown.words
    assert "shapes, question 1" in shown.words
    assert not re.search(r"(src|href|url\()\W*(?!data:)(https?:)?//", files[0].decode())
    assert str(project) not in files[0].decode() + files[1].decode()
    assert all(len(some) <= max(KEPT, PER_FILTER) for some in first["examples"].values())
    drawn = [attrs for tag, attrs in shown.tags if tag == "img"]
    assert len(drawn) >= 4
    assert all((attrs["src"] or "").startswith("data:image/png;base64,") for attrs in drawn)


@pytest.mark.parametrize("evil", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7 * 7 }}", "</bdi></main>"])
def test_other_peoples_text_stays_text(project, evil):
    rows = [{**row(f"{evil}{i}", answer=evil), "category": evil} for i in range(3)]
    ingested("a", [*rows, row("broken", images=[b"broken"])])
    rows[0]["images"] = [{"bytes": picture(1), "path": evil}]
    run(("a",), [{"kind": "image_validity"}, {"kind": "exact_duplicates"}])
    shown = page()
    assert "script" not in {tag for tag, _ in shown.tags}
    assert not [attrs for _, attrs in shown.tags if any(name.startswith("on") for name in attrs)]
    assert evil in shown.text


def test_a_curation_without_pictures_with_an_empty_source_and_with_nothing_kept_has_a_card_too(project):
    ingested("a", [])
    ingested("b", [row("b1", source="b")])
    assert run(filters=[])["rows_kept"] == 1
    assert "1 of 1 rows are kept" in page().words
    empty = run(filters=[{"kind": "text_length", "min": 5}])
    assert (empty["rows_kept"], empty["answers"]["sources"]["b"], empty["answers"]["histogram"]) == (0, {"answers": 0}, None)
    assert "0 of 1 rows are kept" in page().words
    assert run(("a",), [])["rows_in"] == 0
    assert "No row is in quarantine." in page().words


def test_the_mixture_takes_rows_out_and_repeats_those_that_it_may(project):
    corpus()
    card = run(filters=[], mixture={"kind": "fixed", "shares": {"a": 1, "b": 2}, "rows": 45, "repeats": {"b": 2}}, decontamination=None)
    counts = json.loads(Path("out/curate/counts.json").read_text())
    assert counts["mixture"] == {"kind": "fixed", "sources": {"a": {"kept": 30, "taken": 15}, "b": {"kept": 20, "taken": 30}}}
    assert counts["by_reason"] == {"no_answer": 2, "not_in_mixture": 15}
    assert counts["rows_in"] == counts["rows_kept"] + counts["dropped"] + counts["quarantined"]
    folders = Counter(folder for folder, _ in on_disk())
    assert folders == {"a": 15, "b": 30, "dropped": 15}
    assert card["written"]["source"] == {"a": 15, "b": 30}
    times = Counter(r["id"] for folder, r in on_disk() if folder == "b")
    assert sorted(set(times.values())) == [1, 2]
    for folder, r in on_disk():
        assert r["verdicts"][-1]["score"] == (0 if folder == "dropped" else times[r["id"]] if folder == "b" else 1)
    (fate,) = fates(Path(), max(times, key=lambda i: times[i]))
    assert (fate["end"], fate["times"]) == ("kept", 2)
    dropped = read_shards(Path("out/curate/data/dropped")).to_pylist()[0]
    assert fates(Path(), dropped["id"])[0]["reason"] == "not_in_mixture"


def test_rewrites_are_counted_by_source_and_kind(project):
    before = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "r"}]
    fix = {"filter": "capfusion", "version": "1", "action": "fix", "score": None, "reason": "", "detail": "", "before": before}
    rows = [
        {**row(f"{i}", answer=f"number {i}"), "verdicts": [fix] if i < 3 else [{**fix, "action": "keep", "reason": "unjudged", "before": None}]}
        for i in range(5)
    ]
    ingested("a", [*rows, {**row("copy", answer="number 0"), "verdicts": [fix]}])
    Path("out/ingest-a").rename("out/rewrite-a")
    params = {"seed": 0, "sources": {"a": {"rewrites": [{"kind": "capfusion"}]}}, "curation": {"filters": [{"kind": "exact_duplicates"}]}}
    step = Step("curate", params)
    step.data.mkdir(parents=True)
    curate.run(step)
    assert json.loads(step.side("card.json").read_text())["rewrites"] == {"a": {"capfusion": {"fix": 4, "keep": 2}}}
    assert "Rewrites" in page().words
    (fate,) = fates(Path(), "1")
    assert fate["verdicts"][0]["before"] == before


# -- why ---------------------------------------------------------------------------------------------------------------------


def test_every_sample_of_a_corpus_has_one_fate_which_is_true(project):
    corpus()
    run()
    ids = [f"a{i:02d}" for i in range(30)] + [f"b{i}" for i in range(20)]
    ends = Counter()
    for name in ids:
        (fate,) = fates(Path(), name)
        ends[fate["end"]] += 1
        if fate["end"] == "quarantined":
            assert (fate["reason"], fate["messages"][1]["content"]) == ("image_truncated", "red")
            assert read_rows(Path(fate["file"]), [fate["row"] - 1])["id"][0].as_py() == name
            continue
        there = read_shard(Path(fate["file"])).slice(fate["row"] - 1, 1).to_pylist()[0]
        assert there["id"] == name
        assert [v["filter"] for v in fate["verdicts"]] == [v["filter"] for v in there["verdicts"]]
    counts = json.loads(Path("out/curate/counts.json").read_text())
    assert ends == {"kept": counts["rows_kept"], "dropped": counts["dropped"], "quarantined": 1}


def test_a_fate_has_the_scores_the_thresholds_and_the_reasons(project):
    corpus()
    run()
    (copy,) = fates(Path(), "a/a07")
    assert (copy["end"], copy["reason"], copy["detail"]) == ("dropped", "exact_duplicate", "as a/a03")
    (known,) = fates(Path(), "a11")
    assert (known["reason"], known["detail"], len(known["verdicts"])) == ("evaluation_picture", "shapes, question 1", 1)
    last = fates(Path(), "a00")[0]["verdicts"][-1]
    assert last["filter"] == "perplexity"
    assert (last["action"] == "keep") == (last["score"] <= last["threshold"]) or last["score"] == last["threshold"]
    refused = fates(Path(), "raw.json:1")
    assert [(f["end"], f["reason"], f["row"]) for f in refused] == [("quarantined", "no_answer", 1)]


def test_an_id_of_two_sources_has_two_fates_and_an_unknown_one_near_ids(project):
    ingested("a", [row("sample-1"), row("sample-2", answer="blue")])
    ingested("b", [row("sample-1", source="b")])
    run(filters=[{"kind": "exact_duplicates"}])
    assert [(f["source"], f["end"]) for f in fates(Path(), "sample-1")] == [("a", "kept"), ("b", "dropped")]
    assert [f["source"] for f in fates(Path(), "b/sample-1")] == ["b"]
    with pytest.raises(DataError, match="smaple-2: no source has a sample of this id; did you mean sample-2"):
        fates(Path(), "smaple-2")
    with pytest.raises(DataError, match=r"no source has a sample of this id; give an id"):
        fates(Path(), "zzz")


# -- parts -------------------------------------------------------------------------------------------------------------------


@given(
    values=st.lists(st.one_of(st.floats(-1e6, 1e6), st.just(float("inf")), st.just(float("nan"))), max_size=60),
    whole=st.booleans(),
    threshold=st.one_of(st.none(), st.floats(-1e6, 1e6)),
)
def test_a_histogram_counts_every_finite_value_once_and_its_chart_stays_in_its_frame(values, whole, threshold):
    numbers = np.array(values, dtype=np.float64)
    numbers = np.where(np.isfinite(numbers), np.rint(numbers), numbers) if whole else numbers
    kept = np.arange(len(values)) % 3 > 0
    found = histogram(numbers, kept, threshold)
    finite = np.isfinite(numbers)
    if found is None:
        assert not finite.any()
        return
    assert (sum(found["kept"]), sum(found["out"])) == (int(kept[finite].sum()), int((~kept)[finite].sum()))
    assert found["edges"] == sorted(found["edges"])
    drawn = chart(found)
    for bar in drawn.bars:
        assert LEFT <= bar.x <= bar.x + bar.width <= RIGHT + 1
        assert TOP <= bar.out <= bar.kept <= BOTTOM


@given(st.sets(st.integers(0, 39)))
def test_rows_of_a_shard_are_read_by_number(tmp_path_factory, chosen):
    folder = tmp_path_factory.mktemp("rows")
    rows = [row(f"{i}", images=[picture(i)]) for i in range(40)]
    write_shards(table(rows), folder, 100)
    (file,) = shards(folder)
    assert read_rows(file, sorted(chosen)).to_pylist() == [rows[i] for i in sorted(chosen)]
    assert read_rows(file, sorted(chosen), ["id"])["id"].to_pylist() == [f"{i}" for i in sorted(chosen)]
