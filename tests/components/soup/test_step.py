import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from components.errors import DataError
from components.soup.step import run
from components.step import Step
from tests.components.evaluation.tiny_models import always
from tests.components.evaluation.tsv import b64, png, row, write

SELECTION = [row(i, b64(png(c)), answer=c) for i, c in enumerate(["red", "red", "red", "blue"])]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {"x": always("blue", folder / "x"), "y": always("red", folder / "y"), "z": always("red", folder / "z", seed=1)}


@pytest.fixture
def project(tmp_path, monkeypatch, models):
    monkeypatch.chdir(tmp_path)
    for name, folder in models.items():
        shutil.copytree(folder, f"out/instruct-{name}/data")
    write(Path("selection.tsv"), SELECTION)
    Path("out/soup/data").mkdir(parents=True)
    return tmp_path


def step(method="greedy", candidates=("x", "y", "z"), last="instruct"):
    stages = {"vision": {}, last: {"candidates": {c: {} for c in candidates}}}
    evaluate = {"ruleset": "exact-1", "max_new_tokens": 4, "batch": 8}
    return Step("soup", {"soup": {"method": method, "selection": "selection.tsv"}, "stages": stages, "evaluate": evaluate})


def selection():
    return json.loads(Path("out/soup/selection.json").read_text())


def files(folder):
    return {p.name: p.read_bytes() for p in Path(folder).iterdir()}


def test_greedy_starts_with_the_best_candidate_and_says_what_it_chose(project):
    run(step())
    chosen = selection()
    assert chosen["candidates"] == {"x": 0.25, "y": 0.75, "z": 0.75}
    assert (chosen["method"], chosen["split"], chosen["members"][0]) == ("greedy", "selection", "y")
    assert chosen["pool_scores"][0] == 0.75
    assert chosen["pool_scores"][-1] >= 0.75
    assert len(chosen["pool_scores"]) == len(chosen["members"])
    assert sorted(p.name for p in Path("out/soup").iterdir()) == ["data", "selection.json"]
    assert files("out/soup/data").keys() == files("out/instruct-y/data").keys()


def test_uniform_is_the_mean_of_all_and_the_frozen_tower_is_untouched(project):
    run(step("uniform"))
    assert selection()["members"] == ["x", "y", "z"]
    assert len(selection()["pool_scores"]) == 1
    soup = load_file("out/soup/data/model.safetensors")
    ingredients = [load_file(f"out/instruct-{c}/data/model.safetensors") for c in "xyz"]
    for key, value in soup.items():
        assert value.equal((sum(i[key].double() for i in ingredients) / 3).float())
        assert value.equal(ingredients[0][key]) == (not key.startswith("llm."))


def test_running_again_gives_the_same_bytes(project):
    run(step())
    before = files("out/soup/data"), Path("out/soup/selection.json").read_bytes()
    shutil.rmtree("out/soup")
    Path("out/soup/data").mkdir(parents=True)
    run(step())
    assert before == (files("out/soup/data"), Path("out/soup/selection.json").read_bytes())


@pytest.mark.parametrize("method", ["greedy", "uniform"])
def test_a_soup_of_one_is_that_candidate_byte_for_byte(project, method):
    run(step(method, candidates=("z",)))
    assert files("out/soup/data") == files("out/instruct-z/data")
    assert (selection()["members"], selection()["pool_scores"]) == (["z"], [0.75])


def test_a_last_stage_without_candidates_is_the_soup_byte_for_byte(project):
    shutil.copytree("out/instruct-x/data", "out/tune/data")
    run(step(candidates=(), last="tune"))
    assert files("out/soup/data") == files("out/tune/data")
    assert (selection()["method"], selection()["members"], selection()["pool_scores"]) == ("single", ["tune"], [0.25])


def test_an_empty_selection_file_is_refused(project):
    write(Path("selection.tsv"), [])
    with pytest.raises(DataError, match=r"selection\.tsv: no rows, but soup\.selection must hold questions"):
        run(step())


def test_a_candidate_with_truncated_weights_is_named(project):
    path = Path("out/instruct-y/data/model.safetensors")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"instruct-y/data/model\.safetensors: not a whole safetensors file"):
        run(step())
