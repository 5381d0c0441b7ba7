"""A user's folder by hand: plain pictures in a few colours, questions about them, captions, and a file of questions for evaluation."""

import base64
import csv
import io
import json
import random
from pathlib import Path
from typing import Any

from PIL import Image

COLORS = {"red": (210, 40, 40), "green": (40, 170, 60), "blue": (50, 70, 220), "white": (250, 250, 250)}
ASKED, ASKED_ZH = "What color is it?", "它是什么颜色？"
CHINESE = {"red": "红色", "green": "绿色", "blue": "蓝色", "white": "白色"}


def png(color: tuple[int, int, int], size: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, "PNG")
    return buffer.getvalue()


def _picture(color: str, rng: random.Random) -> bytes:
    shade = tuple(max(0, min(255, c + rng.randint(-30, 30))) for c in COLORS[color])
    return png(shade, (rng.randint(32, 56), rng.randint(32, 56)))  # pyright: ignore[reportArgumentType]


def row(row_id: str, image: str, question: str, answer: str) -> dict[str, Any]:
    return {"id": row_id, "image": image, "conversations": [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": answer}]}


def write_files(folder: Path, number: int = 40, asked: int = 8, chinese: bool = False) -> list[dict[str, Any]]:
    """`train.json`, `captions.json`, `eval.tsv`, `images/`: `number` pictures to train on and `asked` to ask. Returns the training rows."""
    rng = random.Random(0)
    (folder / "images").mkdir(parents=True)
    names = [list(COLORS)[i % len(COLORS)] for i in range(number)]
    for i, color in enumerate(names):
        (folder / f"images/{i}.png").write_bytes(_picture(color, rng))
    rows = [row(f"q{i}", f"{i}.png", ASKED_ZH if chinese else ASKED, CHINESE[c] if chinese else c) for i, c in enumerate(names)]
    captions = [row(f"c{i}", f"{i}.png", "Describe it.", f"a {c} picture") for i, c in enumerate(names)]
    write_json(folder / "train.json", rows)
    write_json(folder / "captions.json", captions)
    with (folder / "eval.tsv").open("w", encoding="utf-8", newline="") as f:
        table = csv.writer(f, delimiter="\t", lineterminator="\n")
        table.writerow(["index", "image", "question", "answer"])
        for i in range(asked):
            color = list(COLORS)[i % len(COLORS)]
            table.writerow([i, base64.b64encode(_picture(color, rng)).decode(), ASKED_ZH if chinese else ASKED, CHINESE[color] if chinese else color])
    return rows


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
