"""A review: what nobody has looked at does not pass, verdicts hold for one content of one row, and the sheet works in a real browser."""

import json
import re
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from components.curation import curate
from components.curation.review_sheet import waiting, write_sheet
from components.curation.reviews import merge, read_reviews
from components.data.canonical import read_shards
from components.errors import DataError, SetupError
from components.step import Step
from flows import review
from tests.components.curation.corpora import ingested, picture
from tests.components.curation.corpora import row as plain_row

CURATED = Path("out/curate/data")
CHROMIUM = shutil.which("chromium")
EVIL = "</script><img src=x onerror=\"document.title='stolen'\">"


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    ingested("a", rows())
    ingested("b", [plain_row("other", source="b")])
    return tmp_path


def rows() -> list[dict]:
    return [plain_row(f"r{i}", answer, [picture(i, size=(30, 20))]) for i, answer in enumerate(["red", "bleu", "green", EVIL, "black"])]


def run(**config: object) -> list[dict]:
    """Curates with a review of source a; the rows of a that pass."""
    filters = [{"kind": "image_validity"}, {"kind": "human_check", "sources": ["a"], **config}]
    step = Step("curate", {"seed": 0, "sources": {s: {"path": "raw.json"} for s in "ab"}, "curation": {"filters": filters}})
    shutil.rmtree(step.data.parent, ignore_errors=True)
    step.data.mkdir(parents=True)
    curate.run(step)
    return read_shards(CURATED / "a").to_pylist()


def on_sheet(page: Path) -> list[dict]:
    """The rows that a sheet holds."""
    return json.loads(re.search(r'<script type="application/json" id="rows">(.*?)</script>', page.read_text(), re.DOTALL)[1])


def verdict(shown: dict, said: str, answer: str | None = None) -> dict:
    head = {key: shown[key] for key in ("source", "id", "digest")}
    messages = {"messages": [shown["messages"][0], {"role": "assistant", "content": answer}]} if answer is not None else {}
    return {**head, "verdict": said, **messages}


def test_nothing_passes_before_it_is_reviewed_and_other_sources_do():
    assert run() == []
    assert [r["id"] for r in read_shards(CURATED / "b").to_pylist()] == ["other"]
    dropped = read_shards(CURATED / "dropped").to_pylist()
    assert {(v["filter"], v["action"], v["reason"]) for r in dropped for v in r["verdicts"][-1:]} == {("human_check", "drop", "unreviewed")}
    assert [r["id"] for r in waiting(CURATED)] == ["r0", "r1", "r2", "r3", "r4"]


def test_accepted_and_corrected_rows_pass_rejected_and_changed_ones_do_not():
    run()
    assert write_sheet(CURATED, Path("sheets/one.html"), 4) == 4
    shown = on_sheet(Path("sheets/one.html"))
    said = [verdict(shown[0], "accept"), verdict(shown[1], "fix", "blue"), verdict(shown[2], "reject"), verdict(shown[3], "accept")]
    Path("saved.json").write_text(json.dumps(said))
    merge([Path("saved.json")], Path("reviews/a.jsonl"))
    passed = run(verdicts="reviews/a.jsonl")
    assert [(r["id"], r["messages"][1]["content"]) for r in passed] == [("r0", "red"), ("r1", "blue"), ("r3", EVIL)]
    assert passed[1]["verdicts"][-1]["before"][1]["content"] == "bleu"
    assert {r["id"]: r["verdicts"][-1]["reason"] for r in read_shards(CURATED / "dropped").to_pylist()} == {"r2": "rejected", "r4": "unreviewed"}
    assert [r["id"] for r in waiting(CURATED)] == ["r4"]

    changed = rows()
    changed[0] = plain_row("r0", "dark red", [picture(0, size=(30, 20))])  # another text
    changed[1] = plain_row("r1", "bleu", [picture(99, size=(30, 20))])  # another picture
    ingested("a", changed)
    assert [r["id"] for r in run(verdicts="reviews/a.jsonl")] == ["r3"]
    assert [r["id"] for r in waiting(CURATED)] == ["r0", "r1", "r4"]


def test_verdicts_come_as_json_and_csv_and_the_later_one_counts():
    run()
    write_sheet(CURATED, Path("one.html"), 99)
    shown = on_sheet(Path("one.html"))
    Path("one.json").write_text(json.dumps([verdict(s, "accept") for s in shown]))
    fixed = json.dumps(verdict(shown[1], "fix", 'say "blue", twice')["messages"]).replace('"', '""')
    Path("two.csv").write_text(f'source,id,digest,verdict,messages\r\na,r0,{shown[0]["digest"]},reject,\r\na,r1,{shown[1]["digest"]},fix,"{fixed}"\r\n')
    assert len(merge([Path("one.json"), Path("two.csv")], Path("all.jsonl"))) == 5
    first = Path("all.jsonl").read_bytes()
    merge([Path("two.csv")], Path("all.jsonl"))
    assert Path("all.jsonl").read_bytes() == first
    assert [(r["id"], r["messages"][1]["content"]) for r in run(verdicts="all.jsonl")][:2] == [("r1", 'say "blue", twice'), ("r2", "green")]


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("a.json", "[{}]", r"a\.json, row 1: source: Field required"),
        ("a.json", "{", r"a\.json: cannot be read as verdicts"),
        ("a.json", "7", r"a\.json: cannot be read as verdicts"),
        ("a.json", '["x"]', r"a\.json, row 1: Input should be a valid dictionary"),
        ("a.csv", "source,id,digest,verdict,messages\na,1,x,accept,\n", r"a\.csv, row 1: digest: String should match"),
        ("a.csv", f"source,id,digest,verdict,messages\na,1,{'0' * 64},fix,nonsense\n", r"a\.csv: cannot be read as verdicts"),
        (
            "a.jsonl",
            json.dumps({"source": "a", "id": "1", "digest": "0" * 64, "verdict": "maybe"}),
            r"row 1: verdict: Input should be 'accept', 'fix' or 'reject'",
        ),
        ("a.jsonl", json.dumps({"source": "a", "id": "1", "digest": "0" * 64, "verdict": "fix"}), r"row 1: .*messages go with the verdict fix"),
        (
            "a.jsonl",
            json.dumps(
                {
                    "source": "a",
                    "id": "1",
                    "digest": "0" * 64,
                    "verdict": "fix",
                    "messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": " "}],
                }
            ),
            r"row 1: .*message 2: an answer has some text",
        ),
    ],
)
def test_a_file_that_is_no_review_is_named_with_its_row_and_nothing_is_written(file, text, words):
    Path(file).write_text(text)
    with pytest.raises(DataError, match=words):
        merge([Path(file)], Path("into.jsonl"))
    assert not Path("into.jsonl").exists()


def test_a_correction_that_loses_the_picture_is_refused_with_the_row():
    run()
    write_sheet(CURATED, Path("one.html"), 1)
    [shown] = on_sheet(Path("one.html"))
    said = verdict(shown, "fix", "red")
    said["messages"][0] = {"role": "user", "content": "What?"}
    Path("one.json").write_text(json.dumps([said]))
    merge([Path("one.json")], Path("all.jsonl"))
    with pytest.raises(DataError, match=r"all\.jsonl: the row 'r0' of a has 1 pictures"):
        run(verdicts="all.jsonl")


def test_the_commands_write_the_next_sheet_and_take_what_it_saves(capsys):
    run()
    review.export(None, Path("one.html"), 2, as_json=True)
    shown = on_sheet(Path("one.html"))
    Path("saved.json").write_text(json.dumps([verdict(s, "accept") for s in shown]))
    review.take([Path("saved.json")], Path("reviews/a.jsonl"), as_json=True)
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert said == [{"page": "one.html", "rows": 2, "left": 3}, {"verdicts": "reviews/a.jsonl", "accept": 2, "fix": 0, "reject": 0}]
    assert len(run(verdicts="reviews/a.jsonl")) == 2
    review.export(None, Path("two.html"), 99, as_json=True)
    assert [s["id"] for s in on_sheet(Path("two.html"))] == ["r2", "r3", "r4"]
    review.take([Path("saved.json")], Path("reviews/a.jsonl"), as_json=False)
    Path("rest.json").write_text(json.dumps([verdict(s, "reject") for s in on_sheet(Path("two.html"))]))
    review.take([Path("rest.json")], Path("reviews/a.jsonl"), as_json=False)
    run(verdicts="reviews/a.jsonl")
    with pytest.raises(SetupError, match="no row waits for a review"):
        review.export(None, Path("three.html"), 99, as_json=False)
    assert not Path("three.html").exists()


@pytest.fixture
def page():
    if CHROMIUM is None:
        pytest.skip("no chromium here: apt-get install chromium")
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        opened = browser.new_page(accept_downloads=True)
        opened.set_default_timeout(60_000)
        yield opened
        browser.close()


def test_a_sheet_is_reviewed_in_a_browser_by_mouse_and_keys_and_saved(page: Page, project: Path):
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    run()
    write_sheet(CURATED, Path("one.html"), 99)
    page.goto((project / "one.html").as_uri())
    expect(page.locator("article")).to_have_count(5)
    assert page.locator("img").evaluate_all("all => Promise.all(all.map(i => i.decode().then(() => i.naturalWidth)))") == [30] * 5
    expect(page.locator("article").nth(3).locator("textarea").nth(1)).to_have_value(EVIL)
    page.keyboard.press("j")
    page.keyboard.press("a")  # r0
    page.locator("article").nth(1).locator("textarea").nth(1).fill('blue, not bleu; “ok”, "ok"')  # editing means fix
    page.locator("article").nth(2).get_by_label("reject").check()
    expect(page.locator("#done")).to_have_text("3")
    page.reload()  # nothing is lost
    expect(page.locator("#done")).to_have_text("3")
    saved = []
    for button in ("Save", "Save as CSV"):
        with page.expect_download() as download:
            page.get_by_role("button", name=button, exact=True).click()
        saved.append(project / download.value.suggested_filename)
        download.value.save_as(saved[-1])
    assert page.title() == "Review of 5 rows"
    assert said == []
    assert [file.name for file in saved] == ["review.json", "review.csv"]
    assert read_reviews(saved[0]) == read_reviews(saved[1])
    merge(saved[1:], Path("all.jsonl"))
    passed = run(verdicts="all.jsonl")
    assert [(r["id"], r["messages"][1]["content"]) for r in passed] == [("r0", "red"), ("r1", 'blue, not bleu; “ok”, "ok"')]
