"""A hand-made, untidy folder of one's own, from `recipe new` to a champion."""

import csv
import json
from pathlib import Path

import pytest
from PIL import Image

from tests.components.survey.own_files import row, write_files, write_json
from tests.conftest import Project

SMALL = [
    "model.vision.depth=1",
    "model.llm.layers=1",
    "stages.vision.schedule.steps=12",
    "stages.instruct.schedule.steps=6",
    "stages.instruct.candidates={a: {data: {subset_seed: 1}}, b: {data: {subset_seed: 2}}}",
]


@pytest.mark.slow
def test_an_untidy_folder_becomes_a_champion(fresh: Project) -> None:
    mine = fresh.root / "data/mine"
    rows = write_files(mine, number=60, chinese=True)
    (mine / "images/deep").mkdir()
    for i in range(10):  # bare names of files in a sub-folder
        (mine / f"images/{i}.png").rename(mine / f"images/deep/{i}.png")
    for i in range(10, 20):  # absolute paths of another machine
        rows[i]["image"] = f"/home/somebody/pictures/images/{i}.png"
    frames = [Image.new("RGB", (40, 40), color) for color in ("red", "blue")]
    frames[0].save(mine / "images/moving.gif", save_all=True, append_images=frames[1:])
    Image.new("1", (20_000, 20_000)).save(mine / "images/huge.png")
    untidy = [
        row("moving", "moving.gif", "什么颜色？", "红色"),
        row("russian", "30.png", "Какой цвет?", "красный"),
        row("huge", "huge.png", "什么颜色？", "红色"),
        row("missing", "nowhere.png", "什么颜色？", "红色"),
        row("outside", "../../../secret.png", "什么颜色？", "红色"),
    ]
    write_json(mine / "train.json", {"about": "colours", "rows": rows + untidy})

    made = fresh.stockpot("recipe", "new", "mine", "--train", "data/mine/train.json", "--images", "data/mine/images")
    assert made.code == 0, made.err
    assert "3 rows will be set aside" in made.out
    assert "no --captions: two stages" in made.out
    assert "no --eval" in made.out
    again = fresh.stockpot("recipe", "new", "mine", "--train", "data/mine/train.json", "--images", "data/mine/images")
    assert (again.code, "--force" in again.err) == (2, True)

    ended = fresh.stockpot("run", "mine", "--use", "--json", *(part for text in SMALL for part in ("--set", text)))
    assert ended.code == 0, ended.err
    data = ended.line["data"]
    assert (data["rows_in"], data["quarantined"]) == (65, 3)
    assert {"image_missing": 1, "image_path": 1, "image_too_large": 1}.items() <= data["by_reason"].items()
    assert ended.line["registry"]["alias"] == "champion"
    soup = ended.line["scores"]["soup"]
    assert "zh" in soup["languages"]
    assert set(soup["benchmarks"]) == {"mine", "shuffled"}
    held = json.loads(Path(fresh.root, "out/soup/selection.json").read_text())
    assert set(held["candidates"]) == {"a", "b"}
    for stage in ("vision", "instruct-a"):
        with Path(fresh.root, "out", stage, "curve.csv").open(encoding="utf-8") as f:
            assert len(list(csv.DictReader(f))) == (10 if stage == "vision" else 6)
    asked = fresh.stockpot("predict", "--model", "models:/stockpot-mine@champion", "data/mine/images/30.png", "什么颜色？", "--json")
    assert asked.code == 0, asked.err
