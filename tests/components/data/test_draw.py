"""The drawn corpus: what it holds, what it keeps apart, and that it is the same bytes every time."""

import base64
import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.data import draw
from components.data.images import ImageError, decode, pixel_digest
from components.data.shapes import COLORS, COUNTS, PAIRS, PLURALS, QUESTIONS, SHAPES, picture, random_scene
from components.errors import RecipeError
from components.step import Step

DRAW = {
    "train": 60,
    "selection": 6,
    "report": 8,
    "min_side": 40,
    "max_side": 56,
    "withheld": [["red", "cross"], ["blue", "square"]],
    "noise": {"duplicates": 3, "truncated": 4, "missing": 2, "unanswered": 4, "scrambled": 5},
}


def run(folder: Path, seed: int = 0, **changes: object) -> Path:
    folder.mkdir(exist_ok=True)
    step = Step("draw", {"seed": seed, "draw": {**DRAW, **changes}})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        step.data.mkdir(parents=True)
        draw.run(step)
    return folder / step.data


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("draw") / "project")


def rows(corpus: Path, name: str) -> list[dict]:
    return json.loads((corpus / f"{name}.json").read_text())


def benchmark(corpus: Path, name: str) -> list[dict]:
    with (corpus / f"{name}.tsv").open(newline="") as f:
        return list(csv.DictReader(f, delimiter="\t"))


def of(rows: list[dict], kind: str) -> list[dict]:
    return [r for r in rows if r["id"].startswith(kind)]


def answers(row: dict) -> list[str]:
    return [turn["value"] for turn in row["conversations"] if turn["from"] == "gpt"]


def digests(corpus: Path, name: str) -> set[str]:
    return {pixel_digest(decode(base64.b64decode(r["image"]), 10**6)) for r in benchmark(corpus, name)}


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_same_recipe_gives_the_same_bytes_and_another_seed_gives_others(corpus, tmp_path):
    assert files(run(tmp_path / "again")) == files(corpus)
    other = files(run(tmp_path / "other", seed=1))
    assert all(other[name] != content for name, content in files(corpus).items() if name.endswith((".json", ".tsv")))


def test_benchmarks_stay_when_the_training_part_changes(corpus, tmp_path):
    more = run(tmp_path / "more", train=70, noise={})
    assert all((more / f"{n}.tsv").read_bytes() == (corpus / f"{n}.tsv").read_bytes() for n in ("selection", "report", "withheld"))


def test_no_benchmark_shares_a_picture_with_training_or_another_benchmark(corpus):
    training = {pixel_digest(decode(p.read_bytes(), 10**6)) for p in sorted((corpus / "images").glob("*.png"))}
    report, selection, withheld = (digests(corpus, n) for n in ("report", "selection", "withheld"))
    assert [len(x) for x in (training, report, selection, withheld)] == [60, 8, 6, 12]
    assert len(training | report | selection | withheld) == 60 + 8 + 6 + 12


def test_no_two_pictures_of_a_studio_share_specification_or_pixels():
    studio = draw.Studio(seed=0, min_side=16, max_side=17)  # so small that random scenes do collide
    drawn = [pair for split in ("report", "train") for pair in studio.draw(split, 400, [("red", "square")])]
    assert len({scene for scene, _ in drawn}) == len({pixel_digest(image) for _, image in drawn}) == 800
    free = [random_scene(("red", "square"), 16, 17, draw.Studio(0, 16, 17).rng("free", i)) for i in range(800)]
    assert len({pixel_digest(picture(s)) for s in free}) < 800


def test_withheld_pairs_are_in_their_own_benchmark_alone(corpus):
    withheld = {("red", "cross"), ("blue", "square")}
    everything = " ".join((corpus / f"{n}.json").read_text() for n in ("captions", "questions", "text"))
    assert "red circle" in everything
    assert "blue circle" in everything
    assert "red cross" not in everything
    assert "blue square" not in everything

    def pairs(found: list[dict]) -> set[tuple[str, ...]]:
        by_picture: dict[str, dict[str, str]] = {}
        for r in found:
            by_picture.setdefault(r["image"], {})[r["category"]] = r["answer"]
        return {(a["color"], a["shape"]) for a in by_picture.values()}

    assert pairs(benchmark(corpus, "withheld")) == withheld
    assert not pairs(benchmark(corpus, "report") + benchmark(corpus, "selection")) & withheld
    asked = {(set(answers(r)) & set(COLORS)).pop() + " " + (set(answers(r)) & set(SHAPES)).pop() for r in of(rows(corpus, "questions"), "question")}
    assert asked
    assert not asked & {"red cross", "blue square"}


def test_every_kind_is_asked_of_every_benchmark_picture(corpus):
    report = benchmark(corpus, "report")
    assert [int(r["index"]) for r in report] == list(range(24))
    assert [r["category"] for r in report] == ["color", "shape", "count"] * 8
    assert all(r["question"] in QUESTIONS[r["category"]] and r["language"] == "en" for r in report)
    assert all(r["answer"] in {"color": COLORS, "shape": SHAPES, "count": COUNTS}[r["category"]] for r in report)


def test_nothing_withheld_leaves_a_header_alone(tmp_path):
    corpus = run(tmp_path / "all", withheld=[])
    assert (corpus / "withheld.tsv").read_text() == "\t".join(draw.COLUMNS) + "\n"


def test_captions_and_answers_tell_what_was_drawn(corpus):
    captions = {r["image"]: answers(r)[0] for r in of(rows(corpus, "captions"), "caption")}
    assert len(captions) == 60
    known = {f"{n} {c} {s if n == 'one' else PLURALS[s]}" for n in COUNTS for c, s in PAIRS}
    assert set(captions.values()) <= known
    for row in of(rows(corpus, "questions"), "question"):
        number, color, shapes = captions[row["image"]].split()
        assert sorted(answers(row)) == sorted([number, color, next(s for s, p in PLURALS.items() if shapes in (s, p))])


def test_each_kind_of_noise_is_there_as_often_as_asked(corpus):
    captions, questions = rows(corpus, "captions"), rows(corpus, "questions")
    by_id = {r["id"]: r for r in captions}
    assert len(by_id) == len(captions) == 60 + 3 + 4 + 2 + 5
    assert len(questions) == 64
    assert len(rows(corpus, "text")) == 60

    plain = {json.dumps([r["image"], r["conversations"]]) for r in of(captions, "caption")}
    assert len(of(captions, "duplicate")) == 3
    assert all(json.dumps([r["image"], r["conversations"]]) in plain for r in of(captions, "duplicate"))
    assert not any((corpus / "images" / r["image"]).exists() for r in of(captions, "missing"))
    assert len(of(captions, "truncated")) == 4
    for row in of(captions, "truncated"):
        with pytest.raises(ImageError) as error:
            decode((corpus / "images" / row["image"]).read_bytes(), 10**6)
        assert error.value.reason == "image_truncated"
    right = {r["image"]: answers(r)[0] for r in of(captions, "caption")}
    assert len(of(captions, "scrambled")) == 5
    for row in of(captions, "scrambled"):
        assert answers(row)[0] != right[row["image"]]
        assert sorted(answers(row)[0].split()) == sorted(right[row["image"]].split())
    assert sorted(map(answers, of(questions, "unanswered"))) == [[], [], [""], [""]]


@given(st.sampled_from(PAIRS), st.randoms(use_true_random=False), st.integers(16, 60), st.integers(0, 60))
@settings(max_examples=60, deadline=None)
def test_a_picture_has_its_size_and_shows_its_colour_on_its_background(pair, rng, side, more):
    scene = random_scene(pair, side, side + more, rng)
    image = picture(scene)
    assert image.size == (scene.width, scene.height)
    assert side <= min(image.size) <= max(image.size) <= side + more
    colors = {color: number for number, color in image.getcolors()}  # type: ignore[union-attr, misc]
    assert set(colors) == {COLORS[pair[0]], scene.background}


def test_a_recipe_that_asks_for_more_pictures_than_there_are_is_refused():
    with pytest.raises(RecipeError, match=r"raise draw\.max_side"):
        list(draw.Studio(0, 16, 16, attempts=1).draw("train", 10**6, [("red", "square")]))


def test_pictures_are_plain_files_that_anything_can_read(corpus):
    from PIL import Image

    with Image.open(io.BytesIO((corpus / "images" / "000000.png").read_bytes())) as image:
        assert image.format == "PNG"
        assert image.mode == "RGB"
