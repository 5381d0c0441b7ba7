"""A small project by hand: params.yaml from micro.yaml, and the canonical rows that ingest and curate would leave."""

import csv
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from ruamel.yaml import YAML
from safetensors.torch import load_file

from components.data.canonical import SCHEMA, write_shards
from components.data.defects import encode
from components.data.shapes import PAIRS, picture, random_scene
from components.data.wording import KINDS, answer, description, question
from components.recipe.loader import load

MICRO = Path(__file__).parents[2] / "recipes" / "micro.yaml"


def row(row_id: str, source: str, turns: list[tuple[str, str]], image: bytes | None) -> dict[str, Any]:
    messages = [{"role": role, "content": text} for turn in turns for role, text in zip(("user", "assistant"), turn, strict=True)]
    if image is not None:
        messages[0]["content"] = "<image>\n" + messages[0]["content"]
    images = [] if image is None else [{"bytes": image, "path": f"{row_id}.png"}]
    return {"id": row_id, "source": source, "language": "en", "category": "qa", "license": "CC0", "images": images, "messages": messages, "verdicts": []}


def rows(number: int) -> dict[str, list[dict[str, Any]]]:
    """Captions and questions of `number` pictures of different sizes."""
    rng = random.Random(0)
    captions, questions = [], []
    for i in range(number):
        scene = random_scene(rng.choice(PAIRS), rng.randint(1, 4), 32, 56, rng)
        image = encode(picture(scene), "PNG")
        captions.append(row(f"caption-{i}", "captions", [description(scene, "en", rng)], image))
        kinds = rng.sample(KINDS, rng.randint(1, 3))
        questions.append(row(f"question-{i}", "questions", [(question(k, "en", rng), answer(scene, k, "en")) for k in kinds], image))
    return {"captions": captions, "questions": questions}


def write_project(folder: Path, number: int = 40, overrides: list[str] | None = None, extra: list[dict[str, Any]] | None = None) -> None:
    """params.yaml and the rows; `extra` rows go to `questions`."""
    recipe = load(MICRO, overrides)
    folder.mkdir(parents=True, exist_ok=True)
    with Path(folder, "params.yaml").open("w", encoding="utf-8") as f:
        YAML(typ="safe", pure=True).dump(recipe.model_dump(mode="json"), f)
    made = rows(number)
    made["questions"] += extra or []
    for source, content in made.items():
        table = pa.Table.from_pylist(content, schema=SCHEMA)
        write_shards(table, folder / "out" / f"ingest-{source}" / "data", 1000)
        write_shards(table, folder / "out" / "curate" / "data" / source, 1000)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def losses(folder: Path, name: str) -> list[float]:
    with Path(folder, "out", name, "loss.csv").open(encoding="utf-8") as f:
        return [float(line["loss"]) for line in csv.DictReader(f)]
