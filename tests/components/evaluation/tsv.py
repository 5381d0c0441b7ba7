"""Small benchmark files for tests: real pictures, written with pandas as VLMEvalKit's are."""

import base64
import io
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image


def png(colour: str, side: int = 40) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(file, "PNG")
    return file.getvalue()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def row(index: Any, image: str, question: str = "what color?", answer: str = "red", **more: str) -> dict[str, Any]:
    return {"index": index, "image": image, "question": question, "answer": answer, **more}


def write(path: Path, rows: list[dict[str, Any]], columns: tuple[str, ...] = ("index", "image", "question", "answer")) -> Path:
    pd.DataFrame(rows, columns=list(rows[0] if rows else columns)).to_csv(path, sep="\t", index=False)
    return path
