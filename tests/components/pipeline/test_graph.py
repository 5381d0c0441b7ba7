"""The recipe as DVC stages: same bytes, right arrows, right parameters, and the whole code of every step."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from components.errors import RecipeError
from components.pipeline.graph import Compiled, compile_recipe
from components.recipe.loader import load

MICRO = Path("tests/recipes/micro.yaml")


@pytest.fixture(scope="module")
def compiled() -> Compiled:
    return compile_recipe(load(MICRO))


def test_the_committed_pair_is_the_compiled_tiny_recipe() -> None:
    assert compile_recipe(load(Path("recipes/tiny.yaml"))).is_in(Path()), "params.yaml or dvc.yaml is stale: run `stockpot use tiny`"


def test_every_hash_seed_gives_the_same_bytes() -> None:
    program = (
        "from pathlib import Path; from components.pipeline.graph import compile_recipe; from components.recipe.loader import load;"
        f"c = compile_recipe(load(Path('{MICRO}'))); print(c.params_text + c.dvc_text)"
    )
    texts = {
        subprocess.run([sys.executable, "-c", program], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True).stdout
        for seed in ("1", "2")
    }
    assert len(texts) == 1
    assert "stages:" in texts.pop()


def test_each_step_reads_what_the_drawing_says(compiled: Compiled) -> None:
    reads = {n: {d.split("/")[1] for d in e["deps"] if d.startswith("out/")} for n, e in compiled.stages.items()}
    candidates = {"instruct-a", "instruct-b", "instruct-c"}
    assert reads == {
        "draw": set(),
        "ingest-captions": {"draw"},
        "ingest-questions": {"draw"},
        "llm": {"ingest-captions", "ingest-questions"},
        "curate": {"draw", "ingest-captions", "ingest-questions", "llm"},
        "vision": {"curate", "llm"},
        "projector": {"curate", "vision"},
        **{name: {"curate", "projector"} for name in candidates},
        "soup": {"draw", *candidates},
        "evaluate": {"draw", "soup", *candidates},
        "package": {"soup", "evaluate"},
    }


def test_no_step_reads_which_rows_were_spoilt_on_purpose(compiled: Compiled) -> None:
    assert compiled.stages["draw"]["outs"] == ["out/draw/data", "out/draw/noise.jsonl"]
    for entry in compiled.stages.values():
        assert not [d for d in entry["deps"] if d.startswith("out/draw") and d != "out/draw/data"]


def test_curation_reads_the_stages_that_its_filters_ask_and_no_endpoint() -> None:
    judges = "[{kind: grammar, judge: llm, sources: [questions]}, {kind: text_answerable, judge: JUDGE, sources: [questions]}]"
    alone = "curation.decontamination=null"
    local = compile_recipe(load(MICRO, [f"curation.filters={judges.replace('JUDGE', 'llm')}", alone])).stages["curate"]["deps"]
    assert [d for d in local if d.startswith("out/")] == ["out/ingest-captions/data", "out/ingest-questions/data", "out/llm/data"]
    endpoint = "{base_url: 'http://127.0.0.1:1/v1', model: m}"
    remote = compile_recipe(load(MICRO, [f"curation.filters=[{{kind: grammar, judge: {endpoint}, sources: [questions]}}]", alone])).stages["curate"]["deps"]
    assert [d for d in remote if d.startswith("out/")] == ["out/ingest-captions/data", "out/ingest-questions/data"]


def test_curation_reads_the_evaluation_files_and_nothing_else_of_the_evaluation() -> None:
    files = ["evaluate.benchmarks={own: {path: data/own.tsv}, held: {path: null}}", "soup.selection=data/choose.tsv", "held_out.report=10"]
    curate = compile_recipe(load(MICRO, files)).stages["curate"]
    assert {"data/own.tsv", "data/choose.tsv"} <= set(curate["deps"])
    assert {"evaluate.benchmarks.own.path", "soup.selection"} <= set(curate["params"])
    assert not {"evaluate", "evaluate.benchmarks.held.path", "out/draw/data"} & {*curate["params"], *curate["deps"]}
    without = compile_recipe(load(MICRO, [*files, "curation.decontamination=null"])).stages["curate"]
    assert not {"data/own.tsv", "soup.selection"} & {*without["params"], *without["deps"]}
    assert {"out/curate/card.html", "out/curate/card.json"} <= set(curate["outs"])


def params_that_change(override: str) -> set[str]:
    one, two = compile_recipe(load(MICRO)), compile_recipe(load(MICRO, [override]))

    def value(compiled: Compiled, key: str) -> object:
        node = compiled.params
        for part in key.split("."):
            node = node[part]
        return node

    assert set(one.stages) == set(two.stages)
    return {n for n in one.stages if any(value(one, k) != value(two, k) for k in one.stages[n]["params"])}


@pytest.mark.parametrize(
    ("override", "steps"),
    [
        ("stages.instruct.lr=5e-4", {"instruct-a", "instruct-b", "instruct-c", "soup", "evaluate"}),
        ("stages.instruct.candidates.b.schedule.steps=7", {"instruct-b", "soup", "evaluate"}),
        ("stages.projector.lr=5e-4", {"projector", "soup", "evaluate"}),
        ("gate.margin=0.1", set()),
        ("curation.shard_rows=100", {"curate"}),
        ("draw.train=161", {"draw"}),
        ("model.context=600", {"llm"}),
    ],
)
def test_an_override_changes_the_parameters_of_its_own_steps(override: str, steps: set[str]) -> None:
    assert params_that_change(override) == steps


def test_a_new_candidate_is_a_new_stage_that_soup_and_evaluate_read() -> None:
    stages = compile_recipe(load(MICRO, ["stages.instruct.candidates.d={lr: 2e-3}"])).stages
    assert "out/instruct-d/data" in stages["soup"]["deps"]
    assert "out/instruct-d/data" in stages["evaluate"]["deps"]
    assert "stages.instruct.lr" not in stages["instruct-d"]["params"]


def test_the_report_is_an_output_that_reads_the_candidates_records_and_is_made_by_a_template(compiled: Compiled) -> None:
    evaluate = compiled.stages["evaluate"]
    assert "out/evaluate/report.html" in evaluate["outs"]
    assert {"out/instruct-a/loss.csv", "out/instruct-b/loss.csv", "out/instruct-c/loss.csv", "out/soup/selection.json"} <= set(evaluate["deps"])
    assert "components/evaluation/report.html.jinja" in evaluate["deps"]
    assert "components/evaluation/report.html.jinja" not in compiled.stages["soup"]["deps"]


def test_prompts_are_code_of_the_steps_that_ask_them(compiled: Compiled) -> None:
    prompts = {name for name, entry in compiled.stages.items() if any("/prompts/" in d for d in entry["deps"])}
    assert prompts == {"curate"}
    asked = [d for d in compiled.stages["curate"]["deps"] if "/prompts/" in d]
    assert {"components/curation/prompts/grammar.verdict.en.v1.txt", "components/curation/prompts/writing.form.zh.v1.txt"} <= set(asked)
    assert not [d for d in asked if "capfusion" in d]


REWRITES = "sources.captions.rewrites=[{kind: prompt_pool}, {kind: vlm_answers, annotator: {source: models/vlm}}]"


def test_a_source_with_rewrites_has_a_stage_for_them_that_everybody_reads() -> None:
    stages = compile_recipe(load(MICRO, [REWRITES])).stages
    rewritten = stages["rewrite-captions"]
    assert {d for d in rewritten["deps"] if not d.startswith("components/")} == {"out/ingest-captions/data", "models/vlm"}
    assert rewritten["params"] == ["engine", "seed", "sources.captions.rewrites"]
    assert {"components/curation/prompts/prompt_pool.zh.v1.txt", "components/curation/vlm_answers.py"} <= set(rewritten["deps"])
    assert list(stages).index("ingest-captions") < list(stages).index("rewrite-captions") < list(stages).index("llm")
    for name in ("llm", "curate"):
        assert {"out/rewrite-captions/data", "out/ingest-questions/data"} <= set(stages[name]["deps"])
        assert "out/ingest-captions/data" not in stages[name]["deps"]
    assert "rewrite-questions" not in stages


def test_another_rewrite_is_no_reason_to_ingest_again() -> None:
    one, two = (compile_recipe(load(MICRO, [override])) for override in (REWRITES, REWRITES.replace("prompt_pool", "ocr_questions")))
    assert one.stages["ingest-captions"] == two.stages["ingest-captions"] == compile_recipe(load(MICRO)).stages["ingest-captions"]
    assert "sources.captions.rewrites" not in one.stages["ingest-captions"]["params"]
    assert "sources.captions.path" in one.stages["ingest-captions"]["params"]
    assert "sources.captions.rewrites" in one.stages["llm"]["params"]


def test_what_filters_read_besides_rows_is_an_input_of_curation() -> None:
    filters = "[{kind: human_check, sources: [captions], verdicts: reviews/a.jsonl}, {kind: grammar, judge: {source: models/llm}, sources: [captions]}]"
    deps = compile_recipe(load(MICRO, [f"curation.filters={filters}"])).stages["curate"]["deps"]
    assert {"reviews/a.jsonl", "models/llm"} <= set(deps)


def test_users_own_files_are_inputs_as_they_are() -> None:
    recipe = load(MICRO, ["sources.captions.path=data/mine.json", "sources.captions.images=data/pictures"])
    deps = compile_recipe(recipe).stages["ingest-captions"]["deps"]
    assert {"data/mine.json", "data/pictures"} <= set(deps)
    assert "out/draw/data" not in deps


def test_no_step_depends_on_the_launchers(compiled: Compiled) -> None:
    for entry in compiled.stages.values():
        assert not [d for d in entry["deps"] if d.startswith(("components/pipeline", "flows", "tasks"))]


def test_rows_that_are_held_out_are_questions_and_give_every_stage_a_learning_curve() -> None:
    held = ["held_out={selection: 10, report: 10}", "soup.selection=null", "evaluate.benchmarks={own: {path: null}}"]
    stages = compile_recipe(load(MICRO, held)).stages
    assert "out/curate/data" in stages["soup"]["deps"]
    assert {"out/curate/data", "out/instruct-a/curve.csv", "out/vision/curve.csv"} <= set(stages["evaluate"]["deps"])
    assert all("held_out" in stages[name]["params"] for name in ("llm", "vision", "projector", "instruct-a", "soup", "evaluate"))
    assert {"out/llm/curve.csv", "out/instruct-b/curve.csv"} <= {next(iter(p)) for e in stages.values() for p in e.get("plots", []) if isinstance(p, dict)}
    without = compile_recipe(load(MICRO)).stages
    assert not [p for e in without.values() for p in e.get("plots", []) if "curve.csv" in str(p)]


@pytest.mark.parametrize(
    ("override", "words"),
    [("soup.selection=null", "soup.selection: null takes the rows of held_out.selection"), ("evaluate.benchmarks.shapes.path=null", "held_out.report")],
)
def test_nothing_is_asked_of_rows_that_are_not_held_out(override: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        load(MICRO, [override])
