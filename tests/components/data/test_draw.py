"""The drawn corpus: what it holds, what it keeps apart, what is wrong with it on purpose, and that it is the same bytes every time."""

import csv
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from components.data import draw
from components.data.benchmark import Question, read
from components.data.images import ImageError, decode, pixel_digest
from components.data.shapes import COLORS, PAIRS, SHAPES, picture, random_scene
from components.data.wording import KINDS, LANGUAGES, QUESTIONS, WORDS, captions
from components.errors import RecipeError
from components.recipe.draw import Draw
from components.recipe.loader import load
from components.step import Step

NOISE = {
    **{"duplicates": 3, "near_duplicates": 6, "scrambled": 5, "wrong_language": 6, "ungrammatical": 7, "answerable": 4},
    **{"truncated": 4, "missing": 2, "unanswered": 4},
}
KIND = {"duplicates": "duplicate", "near_duplicates": "near_duplicate"}
"""Key of the recipe -> label, where they differ."""
DRAW = {"train": 120, "selection": 6, "report": 8, "min_side": 40, "max_side": 56, "withheld": [["red", "cross"], ["blue", "square"]], "noise": NOISE}


def every_caption(pairs: Iterable[tuple[str, str]]) -> set[str]:
    """The captions of these colour-shape pairs, in any number and language."""
    scenes = [random_scene(pair, number, 16, 16, Random(0)) for pair in pairs for number in range(1, 5)]
    return {text for scene in scenes for language in LANGUAGES for text in captions(scene, language)}


GOOD = every_caption(PAIRS)


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


def labels(corpus: Path) -> list[dict]:
    return [json.loads(line) for line in (corpus.parent / "noise.jsonl").read_text().splitlines()]


def spoilt(corpus: Path, noise: str) -> list[dict]:
    """The rows with this label."""
    found = {(label["source"], label["id"]) for label in labels(corpus) if label["noise"] == noise}
    return [r for source in ("captions", "questions") for r in rows(corpus, source) if (source, r["id"]) in found]


def clean(corpus: Path, source: str) -> list[dict]:
    bad = {label["id"] for label in labels(corpus) if label["source"] == source}
    return [r for r in rows(corpus, source) if r["id"] not in bad]


def turns(row: dict, who: str) -> list[str]:
    return [turn["value"] for turn in row["conversations"] if turn["from"] == who]


def answers(row: dict) -> list[str]:
    return turns(row, "gpt")


def shown(corpus: Path, row: dict) -> Image.Image:
    return decode((corpus / "images" / row["image"]).read_bytes(), 10**6)


def benchmark(corpus: Path, name: str) -> list[Question]:
    return read(corpus / f"{name}.tsv")


def digests(corpus: Path, name: str) -> set[str]:
    return {pixel_digest(decode(image, 10**6)) for image in {q.image for q in benchmark(corpus, name)} if image}


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_same_recipe_gives_the_same_bytes_and_another_seed_gives_others(corpus, tmp_path):
    assert files(run(tmp_path / "again").parent) == files(corpus.parent)
    other = files(run(tmp_path / "other", seed=1).parent)
    assert all(other[name] != content for name, content in files(corpus.parent).items() if name.endswith((".json", ".tsv", ".jsonl")))


def test_benchmarks_stay_when_the_training_part_changes(corpus, tmp_path):
    more = run(tmp_path / "more", train=130, noise={})
    assert all((more / f"{n}.tsv").read_bytes() == (corpus / f"{n}.tsv").read_bytes() for n in ("selection", "report", "withheld"))


def test_no_benchmark_shares_a_picture_with_training_or_another_benchmark(corpus):
    training = {pixel_digest(shown(corpus, row)) for row in clean(corpus, "questions")}
    report, selection, withheld = (digests(corpus, n) for n in ("report", "selection", "withheld"))
    assert [len(x) for x in (training, report, selection, withheld)] == [120 - 7 - 4, 8, 6, 6]
    assert len(training | report | selection | withheld) == sum(map(len, (training, report, selection, withheld)))


def test_no_two_pictures_of_a_studio_share_specification_or_pixels():
    studio = draw.Studio(seed=0, min_side=16, max_side=16)  # so small that random scenes do collide
    drawn = [pair for split in ("report", "train") for pair in studio.draw(split, 3000, [("red", "square")])]
    assert len({scene for scene, _ in drawn}) == len({pixel_digest(image) for _, image in drawn}) == 6000
    free = [random_scene(("red", "square"), 1, 16, 16, Random(i)) for i in range(6000)]
    assert len({pixel_digest(picture(s)) for s in free}) < 6000


def test_every_pair_and_number_is_drawn_about_as_often(corpus):
    subjects = draw.Studio(0, 16, 16).subjects("train", 200, PAIRS[:5])
    assert set(Counter(subjects).values()) == {10}
    assert subjects != sorted(subjects)


def test_withheld_pairs_are_in_their_own_benchmark_alone(corpus):
    def pairs(found: list[Question]) -> set[tuple[str, str]]:
        by_picture: dict[bytes | None, dict[str, str]] = {}
        for q in found:
            if q.language == "en":
                by_picture.setdefault(q.image, {})[q.kind] = q.answer
        return {(a["color"], a["shape"]) for a in by_picture.values()}

    withheld = {("red", "cross"), ("blue", "square")}
    assert pairs(benchmark(corpus, "withheld")) == withheld
    assert not pairs(benchmark(corpus, "report") + benchmark(corpus, "selection")) & withheld
    never = every_caption(withheld)
    said = [turn["value"] for source in ("captions", "questions", "text") for row in rows(corpus, source) for turn in row["conversations"]]
    told = {text for value in said for text in value.split("\n")}
    assert "two red circles" in GOOD
    assert never < GOOD
    assert told & GOOD
    assert not told & never
    assert not {"zwei rote Kreuze", "ein rotes Kreuz"} & told


def test_every_kind_is_asked_of_every_benchmark_picture_in_both_languages(corpus):
    with (corpus / "report.tsv").open(newline="") as f:
        assert next(csv.reader(f, delimiter="\t")) == draw.COLUMNS
    report = benchmark(corpus, "report")
    assert [q.index for q in report] == list(range(48))
    assert Counter((q.image, q.language, q.kind) for q in report) == {(i, k, n): 1 for i in {q.image for q in report} for k in LANGUAGES for n in KINDS}
    assert all(q.question in QUESTIONS[q.language][q.kind] and q.answer in WORDS[q.language][q.kind].values() for q in report)
    for image in {q.image for q in report}:  # both languages say the same
        told = {language: {q.kind: q.answer for q in report if q.image == image and q.language == language} for language in LANGUAGES}
        assert all(any(WORDS["en"][k][x] == told["en"][k] and WORDS["zh"][k][x] == told["zh"][k] for x in WORDS["en"][k]) for k in KINDS)


def test_whoever_always_says_the_same_is_right_at_most_one_time_in_four(tmp_path):
    """On the benchmark of the demo, which does not depend on the training part; and it asks every kind often enough in every language."""
    config = load(Path("recipes/tiny.yaml")).model_dump(mode="json")["draw"]
    report = benchmark(run(tmp_path / "tiny", **{**config, "train": 10, "noise": {}}), "report")
    guessed = 0
    for language in LANGUAGES:
        for kind in KINDS:
            said = Counter(q.answer for q in report if (q.language, q.kind) == (language, kind))
            assert said.total() >= 100
            guessed += max(said.values())
    assert guessed / len(report) <= 0.25


def test_nothing_withheld_leaves_a_header_alone(tmp_path):
    corpus = run(tmp_path / "all", withheld=[])
    assert (corpus / "withheld.tsv").read_text() == "\t".join(draw.COLUMNS) + "\n"


def test_every_row_says_its_language_and_nothing_by_its_id(corpus):
    for source in ("captions", "questions", "text"):
        found = rows(corpus, source)
        assert [r["id"] for r in found] == [f"{i:06d}" for i in range(len(found))]
        assert {r["language"] for r in found} == set(LANGUAGES)
        for row in found:
            chinese = [any("\u4e00" <= c <= "\u9fff" for c in text) for text in turns(row, "human")]
            assert set(chinese) == {row["language"] == "zh"}


def test_captions_and_answers_tell_what_was_drawn(corpus):
    """The colour is on the picture; captions and questions, made apart, agree on shape and number."""
    told = {r["image"]: (r["language"], answers(r)[0]) for r in clean(corpus, "captions")}
    assert {text for _, text in told.values()} <= GOOD
    checked = 0
    for row in clean(corpus, "questions"):
        words = WORDS[row["language"]]
        kinds = [next(k for k in KINDS if q.removeprefix("<image>\n") in QUESTIONS[row["language"]][k]) for q in turns(row, "human")[:3]]
        said = dict(zip(kinds, answers(row), strict=False))
        assert set(kinds) == set(KINDS)
        color, shape, number = (next(x for x in words[k] if words[k][x] == said[k]) for k in KINDS)
        if row["image"].endswith(".png"):
            assert {c for _, c in shown(corpus, row).getcolors() or []} & set(COLORS.values()) == {COLORS[str(color)]}
        scene = random_scene((str(color), str(shape)), int(number), 40, 40, Random(0))
        assert set(answers(row)[3:]) <= set(captions(scene, row["language"]))
        if row["image"] in told:
            assert told[row["image"]][1] in captions(scene, told[row["image"]][0])
            checked += 1
    assert checked > 60


def test_each_kind_of_noise_is_there_as_often_as_asked(corpus):
    assert Counter(label["noise"] for label in labels(corpus)) == {KIND.get(key, key): number for key, number in NOISE.items()}
    assert [len(rows(corpus, n)) for n in ("captions", "questions", "text")] == [120 + 3 + 6 + 4 + 2, 120 + 4, 240]
    assert not labels(run(corpus.parents[2] / "clean", noise={}))


def test_duplicates_come_behind_their_originals(corpus):
    captions = {r["id"]: r for r in rows(corpus, "captions")}
    for label in [label for label in labels(corpus) if label["of"]]:
        copy, original = captions[label["id"]], captions[label["of"]]
        assert copy["id"] > original["id"]
        assert copy["conversations"] == original["conversations"]
        one, two = shown(corpus, copy), shown(corpus, original)
        if label["noise"] == "duplicate":
            assert pixel_digest(one) == pixel_digest(two)
        else:
            assert pixel_digest(one) != pixel_digest(two)
            small = [list(im.resize((8, 8), Image.Resampling.BOX).tobytes()) for im in (one, two)]
            assert sum(abs(a - b) for a, b in zip(*small, strict=True)) / len(small[0]) < 10
    assert {label["noise"] for label in labels(corpus) if label["of"]} == {"duplicate", "near_duplicate"}


def test_spoilt_captions_are_no_captions_of_their_language(corpus):
    for row in spoilt(corpus, "scrambled"):
        assert answers(row)[0] not in GOOD
        units = str.split if row["language"] == "en" else list
        assert any(Counter(units(answers(row)[0])) == Counter(units(text)) for text in GOOD)
    for row in spoilt(corpus, "wrong_language"):
        chinese = any("\u4e00" <= c <= "\u9fff" for c in answers(row)[0])
        german = answers(row)[0] not in GOOD
        assert german or chinese == (row["language"] == "en")


def test_spoilt_questions_can_be_told_by_their_own_words(corpus):
    for row in spoilt(corpus, "ungrammatical"):
        assert answers(row)[-1] not in GOOD
        assert all(a in {w for kind in KINDS for w in WORDS[row["language"]][kind].values()} for a in answers(row)[:-1])
    for row in spoilt(corpus, "answerable"):
        for ask, said in zip(turns(row, "human"), answers(row), strict=True):
            told, question = ask.removeprefix("<image>\n").split("\n")
            assert told in GOOD
            assert said in told
            assert any(question in wordings for wordings in QUESTIONS[row["language"]].values())


def test_files_that_are_missing_or_cut_off_and_rows_without_an_answer(corpus):
    assert not any((corpus / "images" / r["image"]).exists() for r in spoilt(corpus, "missing"))
    for row in spoilt(corpus, "truncated"):
        with pytest.raises(ImageError) as error:
            shown(corpus, row)
        assert error.value.reason == "image_truncated"
    assert sorted(map(answers, spoilt(corpus, "unanswered"))) == [[], [], [""], [""]]


def test_text_rows_tell_scenes_and_judge_texts_half_and_half(tmp_path):
    found = rows(run(tmp_path / "text", train=200), "text")
    assert not any("image" in r for r in found)
    judged = [(r["language"], q, a) for r in found for q, a in zip(turns(r, "human"), answers(r), strict=True) if a in ("yes", "no", "是", "否")]
    assert {a for language, _, a in judged if language == "zh"} == {"是", "否"}
    assert 0.4 < sum(a in ("yes", "是") for _, _, a in judged) / len(judged) < 0.6
    words = {w for language in LANGUAGES for kind in KINDS for w in WORDS[language][kind].values()}
    for _, question, verdict in judged:
        text = question.partition("? ")[2] or question.partition("？")[2]
        assert (text in GOOD | words) == (verdict in ("yes", "是"))
    assert sum("\n" in turns(r, "human")[0] for r in found) == 300


@given(st.sampled_from(PAIRS), st.integers(1, 4), st.randoms(use_true_random=False), st.integers(16, 60), st.integers(0, 60))
@settings(max_examples=60, deadline=None)
def test_a_picture_has_its_size_and_shows_its_colour_on_its_background(pair, count, rng, side, more):
    scene = random_scene(pair, count, side, side + more, rng)
    image = picture(scene)
    assert scene.count == count
    assert image.size == (scene.width, scene.height)
    assert side <= min(image.size) <= max(image.size) <= side + more
    colors = {color: number for number, color in image.getcolors()}  # type: ignore[union-attr, misc]
    assert set(colors) == {COLORS[pair[0]], scene.background}


def test_a_recipe_that_asks_for_more_pictures_than_there_are_is_refused():
    with pytest.raises(RecipeError, match=r"raise draw\.max_side"):
        list(draw.Studio(0, 16, 16, attempts=1).draw("train", 10**6, [("red", "square")]))


def test_more_spoilt_rows_than_pictures_are_refused():
    with pytest.raises(ValueError, match="9 caption rows with a defect of their own are more than the 8 pictures"):
        Draw.model_validate({"train": 8, "selection": 1, "report": 1, "noise": {"scrambled": 4, "duplicates": 5}})


def test_pictures_are_plain_files_that_anything_can_read(corpus):
    formats = set()
    for row in clean(corpus, "captions"):
        with Image.open(corpus / "images" / row["image"]) as image:
            assert image.mode == "RGB"
            formats.add((image.format, row["image"].rpartition(".")[2]))
    assert formats == {("PNG", "png"), ("JPEG", "jpg")}
    assert set(SHAPES) == set(WORDS["en"]["shape"])
