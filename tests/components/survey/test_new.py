"""`recipe new` on a hand-made folder: what it writes, what it says, and what it refuses."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from components.errors import DataError, RecipeError
from components.pipeline.graph import compile_recipe
from components.recipe.loader import load
from components.recipe.recipe import Recipe
from components.survey.new import new_recipe
from tests.components.data.user_files import b64, parquet, tar, tsv, write
from tests.components.survey.own_files import ASKED, png, row, write_files, write_json

MINE = Path("data/mine")
TRAIN, CAPTIONS, IMAGES, QUESTIONS = MINE / "train.json", MINE / "captions.json", MINE / "images", MINE / "eval.tsv"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path / MINE)
    return tmp_path


def recipe(name: str = "mine") -> Recipe:
    return load(Path(f"recipes/{name}.yaml"))


def test_four_files_become_a_recipe_of_three_stages(project: Path) -> None:
    said = "\n".join(new_recipe("mine", train=TRAIN, captions=CAPTIONS, images=IMAGES, questions=QUESTIONS))
    made = recipe()
    assert list(made.stages) == ["vision", "describe", "instruct"]
    assert {n: (s.path, s.images, s.language) for n, s in made.sources.items()} == {
        "captions": ("data/mine/captions.json", "data/mine/images", "en"),
        "train": ("data/mine/train.json", "data/mine/images", "en"),
    }
    assert {b.path for b in made.evaluate.benchmarks.values()} == {"data/mine/eval.tsv"}
    assert (made.soup.selection, made.held_out.report) == (None, 0)
    assert made.held_out.selection > 0
    assert list(compile_recipe(made).stages)[-1] == "package"
    for words in ("40 rows", "languages en 40", "4 different answers", "10 times each", "8 questions", "three stages", "4 classes", "recipes/mine.yaml"):
        assert words in said


def test_without_captions_there_are_two_stages_and_it_says_so(project: Path) -> None:
    said = "\n".join(new_recipe("mine", train=TRAIN, images=IMAGES, questions=QUESTIONS))
    assert list(recipe().stages) == ["vision", "instruct"]
    assert list(recipe().sources) == ["train"]
    assert "no --captions: two stages" in said


def test_without_questions_a_part_of_the_pictures_is_held_out_to_report_on(project: Path) -> None:
    said = "\n".join(new_recipe("mine", train=TRAIN, images=IMAGES))
    assert recipe().held_out.report > 0
    assert {b.path for b in recipe().evaluate.benchmarks.values()} == {None}
    assert "out/curate/data" in compile_recipe(recipe()).stages["evaluate"]["deps"]
    assert "no --eval" in said


def test_pictures_lie_beside_the_rows_unless_a_folder_is_named(project: Path) -> None:
    new_recipe("mine", train=TRAIN)
    assert recipe().sources["train"].images == "data/mine"


@pytest.mark.parametrize("chinese", [False, True])
def test_vocabulary_lengths_and_language_follow_the_text(project: Path, chinese: bool) -> None:
    shutil.rmtree(MINE)
    rows = write_files(MINE, chinese=chinese)
    long = "一个很长很长的句子，" * 40 if chinese else "a very long sentence that goes on, " * 40
    write_json(TRAIN, [*rows, row("long", "0.png", "?", long)])
    new_recipe("mine", train=TRAIN, images=IMAGES, questions=QUESTIONS)
    assert recipe().sources["train"].language == ("zh" if chinese else "en")
    assert recipe().evaluate.max_new_tokens > 40
    assert all(s.batch.max_tokens >= recipe().evaluate.max_new_tokens for s in recipe().stages.values())
    assert recipe().model.context >= max(s.batch.max_tokens for s in recipe().stages.values())


def test_rows_of_several_languages_are_told_apart_by_their_script(project: Path) -> None:
    rows = write_files(project / "data/zh", chinese=True)
    write_json(TRAIN, [*json.loads(TRAIN.read_text()), *({**r, "id": f"zh{r['id']}"} for r in rows), row("ru", "0.png", "?", "красный цвет")])
    said = "\n".join(new_recipe("mine", train=TRAIN, images=IMAGES))
    assert recipe().sources["train"].language is None
    assert "ru 1" in said


def test_the_same_files_give_the_same_recipe(project: Path) -> None:
    new_recipe("mine", train=TRAIN, captions=CAPTIONS, images=IMAGES)
    first = Path("recipes/mine.yaml").read_bytes()
    new_recipe("mine", train=TRAIN, captions=CAPTIONS, images=IMAGES, force=True)
    assert Path("recipes/mine.yaml").read_bytes() == first


def test_a_name_that_is_taken_is_refused_unless_forced(project: Path) -> None:
    Path("recipes").mkdir()
    Path("recipes/mine.yaml").write_text("precious")
    with pytest.raises(RecipeError, match=r"recipes/mine\.yaml: there is a recipe of this name.*--force"):
        new_recipe("mine", train=TRAIN, images=IMAGES)
    assert Path("recipes/mine.yaml").read_text() == "precious"
    new_recipe("mine", train=TRAIN, images=IMAGES, force=True)
    assert recipe().name == "mine"


@pytest.mark.parametrize("name", ["My-Pictures", "../mine", "1st", ""])
def test_a_name_that_cannot_be_is_refused(project: Path, name: str) -> None:
    with pytest.raises(RecipeError, match="lower-case letters"):
        new_recipe(name, train=TRAIN, images=IMAGES)


def test_rows_that_will_be_set_aside_are_counted_by_reason_with_an_example(project: Path) -> None:
    rows = json.loads(TRAIN.read_text())
    Image.new("1", (20_000, 20_000)).save(IMAGES / "huge.png")
    (IMAGES / "cut.png").write_bytes(png((1, 2, 3), (40, 40))[:20])
    bad = [row("a", "nowhere.png", "?", "red"), row("b", "../../secret.png", "?", "red"), row("c", "huge.png", "?", "red"), row("d", "cut.png", "?", "red")]
    write_json(TRAIN, [*rows, *bad, row("e", "0.png", "?", "")])
    said = new_recipe("mine", train=TRAIN, images=IMAGES)[0]
    assert "5 rows will be set aside" in said
    for reason in ("image_missing 1", "image_path 1", "image_too_large 1"):
        assert reason in said
    assert "row 41" in said


def test_what_the_questions_ask_beyond_the_training_rows_is_said(project: Path) -> None:
    lines = QUESTIONS.read_text().splitlines()
    QUESTIONS.write_text("\n".join([*lines[:-1], lines[-1].rpartition("\t")[0] + "\tpurple"]) + "\n")
    shutil.copy(IMAGES / "0.png", IMAGES / "99.png")
    said = "\n".join(new_recipe("mine", train=TRAIN, images=IMAGES, questions=QUESTIONS))
    assert "1 of its answers are never taught, such as 'purple'" in said


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "found an empty file"),
        ("[]", "no rows: there is nothing to learn from"),
        ('{"a": 1}', "expected a JSON list of rows, or an object that holds one"),
        ("<html>", "expected a JSON list of rows, found <"),
        ('[{"id": "a"}]', "not one of 1 rows can be used; row 1: conversations"),
        ('[{"image": "a.png", "conversations": [{"from": "human", "value": "<image>?"}, {"from": "gpt", "value": "x"}]}]', "not one of the pictures"),
        ('[{"conversations": [{"from": "human", "value": "?"}, {"from": "gpt", "value": "x"}]}]', "no row has a picture"),
    ],
)
def test_a_file_of_no_use_is_named_with_what_was_expected(project: Path, content: str, words: str) -> None:
    TRAIN.write_text(content)
    with pytest.raises(DataError) as error:
        new_recipe("mine", train=TRAIN, images=IMAGES)
    assert "data/mine/train.json" in str(error.value)
    assert words in str(error.value)
    assert not Path("recipes/mine.yaml").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "the file is empty"),
        ("index\timage\tquestion\tanswer\n", "no rows under the header"),
        ("index\timage\tquestion\tanswer\n1\taGVsbG8=" + "A" * 80 + "\t?\tx\n", "row 1"),
    ],
)
def test_questions_of_no_use_are_found_before_any_training(project: Path, content: str, words: str) -> None:
    QUESTIONS.write_text(content)
    with pytest.raises(DataError, match=words) as error:
        new_recipe("mine", train=TRAIN, images=IMAGES, questions=QUESTIONS)
    assert "data/mine/eval.tsv" in str(error.value)


def test_rows_in_other_formats_are_recognised_and_named_in_the_recipe(project: Path) -> None:
    rows = json.loads(TRAIN.read_text())
    pictures = {r["id"]: (IMAGES / r["image"]).read_bytes() for r in rows}
    talk = [{"role": "user", "content": ASKED}, {"role": "assistant", "content": "red"}]
    flat = [{"id": r["id"], "question": ASKED, "answer": r["conversations"][1]["value"]} for r in rows]
    members = [(f"{r['id']}.{end}", data) for r in rows for end, data in (("png", pictures[r["id"]]), ("json", json.dumps({**r, "id": None}).encode()))]
    files: dict[str, tuple[str, Any]] = {
        "train.tar.gz": ("webdataset", tar(members)),
        "train.parquet": ("parquet", parquet([{**f, "image": pictures[f["id"]]} for f in flat])),
        "train.tsv": ("vlmevalkit", tsv([{**f, "index": f["id"], "image": b64(pictures[f["id"]])} for f in flat])),
        "train.jsonl": ("base64", [{**f, "image": b64(pictures[f["id"]] + bytes(300))} for f in flat]),
        "messages.jsonl": ("messages", [{"image": r["image"], "messages": talk} for r in rows]),
    }
    for name, (form, content) in files.items():
        write(MINE / name, content)
        new_recipe("mine", train=MINE / name, images=IMAGES, force=True)
        source = recipe().sources["train"]
        assert (source.format, source.path, source.images is not None) == (form, f"data/mine/{name}", form in ("messages", "vlmevalkit"))
    shards = MINE / "shards"
    for number in range(2):
        write(shards / f"{number}.tar", tar(members[number * 40 :][:40]))
    said = new_recipe("mine", train=shards, force=True)[0]
    assert recipe().sources["train"].path == "data/mine/shards"
    assert "40 rows" in said
    with pytest.raises(DataError, match=r"rows in several formats, such as"):
        new_recipe("mine", train=MINE, force=True)


def test_files_outside_of_the_project_are_refused_with_a_remedy(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    write_files(elsewhere / "pictures")
    with pytest.raises(RecipeError, match=rf"outside of this project.*ln -s {elsewhere}/pictures data/mine"):
        new_recipe("mine", train=elsewhere / "pictures/train.json")
    (MINE.parent / "linked").symlink_to(elsewhere / "pictures")
    new_recipe("mine", train=MINE.parent / "linked/train.json", images=MINE.parent / "linked/images")
    assert recipe().sources["train"].path == "data/linked/train.json"


def test_a_file_that_is_not_there_is_named(project: Path) -> None:
    with pytest.raises(RecipeError, match=r"nothing\.json: no such file"):
        new_recipe("mine", train=Path("nothing.json"))
