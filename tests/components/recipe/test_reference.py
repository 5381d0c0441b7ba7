"""The reference page says what the schema says."""

import re
from pathlib import Path

import pytest

from components.errors import RecipeError
from components.recipe.loader import load
from components.recipe.recipe import RESERVED, Recipe
from components.recipe.reference import RULES, markdown

PAGE = Path("docs/reference/recipe.md")
TINY = Path("recipes/tiny.yaml")


def test_the_page_is_what_the_schema_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == markdown(), "stale: run `python -m components.recipe.reference > docs/reference/recipe.md`"


def test_every_key_of_every_section_is_there_with_a_meaning() -> None:
    page = markdown()
    sections = {"Recipe": Recipe.model_json_schema(), **Recipe.model_json_schema()["$defs"]}
    for name, section in sections.items():
        for key in section["properties"]:
            rows = [line.split(" | ") for line in page.splitlines() if line.startswith(f"| `{key}` | ")]
            assert rows, f"{name}.{key}"
            assert all(len(row) == 4 and row[3].removesuffix(" |").strip() for row in rows), f"{name}.{key}: a row without a meaning"


def test_bounds_choices_and_defaults_are_shown() -> None:
    page = markdown()
    assert "| `keep_percent` | integer >= 1, <= 100 | `20` |" in page
    assert '| `method` | `uniform` or `greedy` | `"greedy"` |' in page
    assert "| `name` | NAME | required |" in page
    assert "## `stages.NAME.trainable.GROUP`" in page
    assert "## `curation.filters: perplexity`" in page


TEXT = "{objective: text, trainable: {llm: {}}, lr: 1, data: {sources: [text]}, batch: {samples: 1, max_tokens: 9}, schedule: {steps: 1}}"

REST = "lr: 1, batch: {samples: 8}, schedule: {steps: 1}}"
PACKS = "lr: 1, batch: {packs: 8}, schedule: {steps: 1}}"
PAIRS = "{sources: [captions], template: plain}"

# words of the rule, an override that breaks it, words of the complaint
BROKEN = [
    ("names an earlier stage", "stages.vision.init_from=instruct", "is not an earlier stage"),
    ("The last stage has objective `lm`", f"stages.instruct={TEXT}", "the last stage must have objective lm"),
    ("Only the last stage may have `candidates`", "stages.vision.candidates={z: {}}", "only the last stage is souped"),
    ("may not change `objective` or `init_from`", "stages.instruct.candidates.a.init_from=llm", "a soup needs a common start"),
    ("trains the group `llm` alone", "stages.llm.trainable={vision: {}}", "objective text trains the llm group"),
    ("one with objective `contrastive` not the `connector`", "stages.vision.objective=contrastive", "objective contrastive does not reach the connector"),
    (
        "`template: plain`",
        "stages.projector={objective: contrastive, trainable: {vision: {}}, data: {sources: [captions]}, " + REST,
        "set data.template: plain",
    ),
    ("`batch.samples`", "stages.vision={objective: contrastive, trainable: {vision: {}}, data: " + PAIRS + ", " + PACKS, "give batch.samples, two at least"),
    ("at most `model.context`", "model.context=100", "is more than model.context 100"),
    ("exactly one of `samples` and `packs`", "stages.vision.batch={packs: 4, samples: 4}", "exactly one of samples and packs"),
    ("exactly one of `steps` and `epochs`", "stages.vision.schedule.epochs=1", "exactly one of steps and epochs"),
    ("name sources of the recipe", "stages.vision.data.sources=[web]", "unknown source 'web'"),
    ("and `curation.mixture` name sources", "curation.mixture={kind: fixed, shares: {web: 1}}", "curation.mixture: unknown source 'web'"),
    ("and `curation.mixture` name sources", "curation.mixture={kind: sqrt, repeats: {web: 2}}", "curation.mixture: unknown source 'web'"),
    ("a filter's `sources`", "curation.filters=[{kind: perplexity, sources: [web]}]", "unknown source 'web'"),
    ("filter's `scorer`", "curation.filters=[{kind: perplexity, scorer: vision, sources: [captions]}]", "is not a stage with objective text"),
    (
        "a `judge` that is a name",
        "curation.filters=[{kind: grammar, judge: vision, sources: [questions]}]",
        "judge 'vision' is not a stage with objective text",
    ),
    ("At least one benchmark counts", "evaluate.benchmarks={x: {path: a.tsv, overall: false}}", "at least one benchmark must have overall: true"),
    ("needs a `draw` section", "draw=null", "the recipe has no draw section"),
    ("candidate `soup`", "stages.instruct.candidates.soup={}", "belongs to the soup itself"),
    ("source `dropped`", "sources.dropped={path: x.json}", "belongs to the folder of dropped rows"),
    ("`draw.min_side` is at most", "draw.min_side=100", "min_side 100 is larger than max_side"),
    ("Widths are multiples of their heads", "model.llm.hidden=66", "width 66 is not a multiple of 4 heads"),
    ("`heads` of `kv_heads`", "model.llm.kv_heads=3", "are not a multiple of 3 kv_heads"),
    ("the head size of `qwen2_vl_vit` is a multiple of 4", "model.vision.width=24", "needs a head size that is a multiple of 4"),
    ("`model.resolution.kind` is `native` for `qwen2_vl_vit`", "model.vision.encoder=clip_vit", "kind native does not go with vision.encoder clip_vit"),
    ("`size` goes with the others", "model.resolution={kind: tiles}", "kind tiles: give the size of a square"),
    ("`none` goes with `merge` 1", "model.connector={pool: none}", "pool none goes with merge 1"),
    ("`vision.select_layer` is one of `depth`", "model.vision.select_layer=-4", "select_layer -4 of 3 blocks"),
    ("`model.min_pixels` is at most", "model.min_pixels=5000", "min_pixels 5000 is larger than max_pixels"),
]


@pytest.mark.parametrize(("rule", "override", "complaint"), BROKEN, ids=[rule for rule, _, _ in BROKEN])
def test_a_rule_of_the_page_is_a_rule_of_the_schema(rule: str, override: str, complaint: str) -> None:
    assert rule in RULES
    with pytest.raises(RecipeError) as caught:
        load(TINY, [override])
    assert complaint in str(caught.value)


def test_the_page_names_all_reserved_stage_names() -> None:
    names = re.search(r"stages (.+);\s+source", RULES)
    assert names is not None
    assert {n.strip("` ") for n in names[1].split(",")} == RESERVED
