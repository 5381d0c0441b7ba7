"""A recipe is checked whole before any work; every complaint names file, key and remedy."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.errors import RecipeError
from components.recipe.loader import find, load
from components.recipe.training import resolve

TINY = Path("recipes/tiny.yaml")


@pytest.mark.parametrize("path", [*Path("recipes").glob("*.yaml"), *Path("tests/recipes").glob("*.yaml")], ids=str)
def test_every_recipe_in_the_repository_loads(path: Path) -> None:
    assert load(path).name == path.stem.replace("-", "_")


def test_numbers_are_yaml_1_2() -> None:
    assert load(TINY, ["stages.instruct.lr=1e-5"]).stages["instruct"].lr == 1e-5


def test_a_stage_starts_from_the_one_before_unless_it_says_otherwise() -> None:
    recipe = load(TINY)
    names = list(recipe.stages)
    assert [s.init_from for s in recipe.stages.values()] == [None, *names[:-1]]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("stages.instruct.lrr=1", "stages.instruct.lrr: unknown key; did you mean lr?"),
        ("modle.llm=1", "modle: unknown key; did you mean model?"),
        ("seed=abc", "seed: Input should be a valid integer"),
        ("stages.instruct.lr=-1", "stages.instruct.lr: Input should be greater than 0"),
        ("stages.instruct.init_from=nowhere", "stages.instruct.init_from: 'nowhere' is not an earlier stage; earlier: words, llm, vision, projector"),
        ("stages.instruct.candidates.a.lrr=1", "unknown key"),
        ("stages.instruct.data.sources=[web]", "stages.instruct.data.sources: unknown source 'web'"),
        ("stages.instruct.schedule.epochs=2", "exactly one of steps and epochs"),
        ("draw=null", "is drawn by the recipe, but the recipe has no draw section"),
        ("model.llm.kv_heads=3", "are not a multiple of 3 kv_heads"),
        ("stages.instruct.batch.max_tokens=100000", "is more than model.context"),
        ("name=Bad-Name", "name: String should match pattern"),
        ("gate.minimum=.nan", "gate.minimum"),
        ("draw.withheld=[[pink, cross]]", "draw.withheld"),
        ("draw.min_side=100", "min_side 100 is larger than max_side"),
        ("sources.dropped={path: data/x.json}", "sources.dropped: this name belongs"),
        ("stages.instruct.candidates.soup={}", "this name belongs to the soup itself"),
    ],
)
def test_a_wrong_recipe_is_refused_with_a_sentence(override: str, words: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load(TINY, [override])
    assert words in str(caught.value)
    assert "recipes/tiny.yaml" in str(caught.value)


def test_an_override_that_is_no_override_says_how_to_write_one() -> None:
    with pytest.raises(RecipeError, match="write key=value"):
        load(TINY, ["stages.instruct.lr"])


def test_a_broken_yaml_names_line_and_column(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("name: bad\nseed: [1, 2\nmodel: {}\n")
    with pytest.raises(RecipeError, match=r"bad\.yaml:3:\d+: not valid YAML"):
        load(file)


@pytest.mark.parametrize("text", ["- 1\n- 2\n", "", "just words"])
def test_a_yaml_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(RecipeError, match="a recipe is a mapping"):
        load(file)


def test_a_recipe_that_does_not_exist_lists_the_known_ones() -> None:
    with pytest.raises(RecipeError, match=r"did you mean tiny\?.*Known in recipes/"):
        find("tinny")


def test_python_objects_in_yaml_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "evil.yaml"
    file.write_text("name: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(RecipeError):
        load(file)


BASE = load(TINY).stages["instruct"].model_dump(mode="json", exclude={"candidates"})


@given(lr=st.floats(1e-8, 1), percent=st.integers(1, 100), steps=st.integers(1, 10_000))
def test_a_candidate_overrides_what_it_names_and_nothing_else(lr: float, percent: int, steps: int) -> None:
    made = resolve(BASE, {"lr": lr, "data": {"percent": percent}, "schedule": {"steps": steps}}).model_dump(mode="json")
    assert (made["lr"], made["data"]["percent"], made["schedule"]["steps"]) == (lr, percent, steps)
    made["lr"], made["data"]["percent"], made["schedule"]["steps"] = BASE["lr"], BASE["data"]["percent"], BASE["schedule"]["steps"]
    assert made == BASE


def test_public_weights_may_judge_where_the_recipe_starts_from_them():
    filters = "curation.filters=[{kind: grammar, judge: weights, sources: [questions]}]"
    with pytest.raises(RecipeError, match="judge 'weights' is not a stage with objective text"):
        load(TINY, [filters])
    assert load(TINY, [filters, "model.weights={llm: {source: qwen}}"]).model.weights is not None
