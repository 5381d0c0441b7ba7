import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from components.errors import DataError, RecipeError
from components.evaluation.step import load, run
from components.recipe.evaluation import Evaluate
from components.step import Step
from tests.components.evaluation.tiny_models import always
from tests.components.evaluation.tsv import b64, png, row, write

REPORT = [row(i, b64(png(c)), answer=c, category="color") for i, c in enumerate(["red", "red", "red", "blue"])]
BENCHMARKS = {"shapes": {"path": "report.tsv"}, "shuffled": {"path": "report.tsv", "shuffle_images": True, "overall": False}}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {name: always(name, folder / name) for name in ("red", "blue")}


@pytest.fixture
def project(tmp_path, monkeypatch, models):
    """A workspace in which soup and candidate `r` are the same model, which says red, and candidate `b` says blue."""
    monkeypatch.chdir(tmp_path)
    for name, model in {"soup": "red", "instruct": "red", "instruct-r": "red", "instruct-b": "blue"}.items():
        shutil.copytree(models[model], f"out/{name}/data")
    for name in ("instruct", "instruct-r", "instruct-b"):
        Path("out", name).mkdir(exist_ok=True)
        Path("out", name, "loss.csv").write_text("step,loss,lr\n1,2.5,0.1\n2,1.5,0.05\n")
    Path("out/soup/selection.json").write_text('{"method": "greedy", "members": ["r"]}')
    write(Path("report.tsv"), REPORT)
    Path("out/evaluate/data").mkdir(parents=True)
    return tmp_path


def step(benchmarks=None, candidates=("r", "b")):
    config = Evaluate.model_validate({"benchmarks": benchmarks or BENCHMARKS, "max_new_tokens": 4, "batch": 2})
    stages = {"vision": {}, "instruct": {"candidates": {c: {} for c in candidates}}}
    return Step("evaluate", {"name": "micro", "evaluate": config.model_dump(mode="json"), "stages": stages})


def outputs():
    return {p.name: p.read_bytes() for p in sorted(Path("out/evaluate").rglob("*")) if p.is_file()}


def test_soup_and_candidates_are_scored_on_every_benchmark(project):
    run(step())
    scores = json.loads(Path("out/evaluate/scores.json").read_text())
    assert scores["overall"] == scores["candidates"]["r"]["overall"] == 0.75
    assert scores["candidates"]["b"]["overall"] == 0.25
    assert scores["model_digest"] == scores["candidates"]["r"]["model_digest"] != scores["candidates"]["b"]["model_digest"]
    assert scores["benchmarks"].keys() == scores["candidates"]["b"]["benchmarks"].keys() == {"shapes", "shuffled"}
    assert scores["benchmarks"]["shapes"]["by"]["kind"]["color"]["n"] == 4
    table = pq.read_table("out/evaluate/data/records.parquet").to_pandas()
    assert len(table) == 3 * 2 * 4
    assert table.groupby(["model", "benchmark"]).correct.mean()["b", "shapes"] == 0.25
    assert set(table[table.model == "b"].prediction) == {"blue"}
    assert Image.open("out/evaluate/scores.png").width > 300
    assert "0.750" in Path("out/evaluate/report.html").read_text()


def test_running_again_gives_the_same_bytes(project):
    run(step())
    before = outputs()
    shutil.rmtree("out/evaluate")
    Path("out/evaluate/data").mkdir(parents=True)
    run(step())
    assert before == outputs()
    assert before.keys() == {"records.parquet", "report.html", "scores.json", "scores.png"}


def test_the_control_asks_the_same_questions_about_other_pictures(project):
    this = step()
    loaded = load(this, this.config("evaluate", Evaluate))
    assert [q.question for q in loaded["shuffled"]] == [q.question for q in loaded["shapes"]]
    assert all(a.image != b.image for a, b in zip(loaded["shuffled"], loaded["shapes"], strict=True))


def test_models_with_equal_weights_are_run_once(project, monkeypatch):
    Path("unit").mkdir()
    monkeypatch.setenv("STOCKPOT_UNIT", "unit")
    run(step())
    assert json.loads(Path("unit/metrics.jsonl").read_text().splitlines()[-1])["total"] == 4  # two of three models, two benchmarks


def test_a_last_stage_without_candidates(project):
    run(step(candidates=()))
    assert json.loads(Path("out/evaluate/scores.json").read_text())["candidates"] == {}


def test_a_benchmark_without_rows_is_reported_without_a_value_unless_it_counts(project):
    write(Path("none.tsv"), [])
    run(step({**BENCHMARKS, "none": {"path": "none.tsv", "overall": False}}, candidates=()))
    none = json.loads(Path("out/evaluate/scores.json").read_text())["benchmarks"]["none"]
    assert (none["n"], none["value"]) == (0, None)
    with pytest.raises(DataError, match=r"none\.tsv: no rows, but evaluate\.benchmarks\.none counts"):
        run(step({"none": {"path": "none.tsv"}}))


@pytest.mark.parametrize(
    ("bad", "complaint"),
    [
        (row(9, b64(png("red")[:60] * 2)), r"report\.tsv: row 5: the image is of no use"),
        (row(9, b64(b"x" * 60)), r"report\.tsv: row 5: the image is of no use"),
        (row(9, b64(png("red")), question="why " * 200), r"report\.tsv: row 5: .* pass the context of 96"),
        (row(9, b64(png("red")), answer="?!"), r"report\.tsv: row 5: rule set exact-1 reads nothing"),
    ],
)
def test_a_bad_row_is_named(project, bad, complaint):
    write(Path("report.tsv"), [*REPORT, bad])
    with pytest.raises(DataError, match=complaint):
        run(step(candidates=()))


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json", "processor_config.json"])
def test_a_damaged_model_is_named(project, file):
    path = Path("out/instruct-b/data", file)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(DataError, match=rf"instruct-b/data/{file}: .*run the step that writes out/instruct-b/data again"):
        run(step())


def test_a_candidate_called_soup_or_missing_is_refused(project):
    with pytest.raises(RecipeError, match=r"stages\.instruct\.candidates\.soup: the name is taken"):
        run(step(candidates=("soup",)))
    with pytest.raises(RecipeError, match=r"out/instruct-z/data: step evaluate needs it"):
        run(step(candidates=("z",)))
