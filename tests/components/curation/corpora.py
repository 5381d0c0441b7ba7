"""Small ingested corpora and scorers for the tests of this room: real shards, real model folders."""

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image

from components.data.canonical import QUARANTINE_SCHEMA, SCHEMA, write_parquet, write_shards
from components.models.build import build_model, build_processor
from components.models.checkpoint import save_model
from components.models.tokenizer import train_tokenizer
from components.recipe.model import Model

MODEL = Model.model_validate(
    {
        "vision": {"depth": 1, "width": 16, "heads": 2, "patch": 4},
        "llm": {"hidden": 16, "layers": 2, "heads": 2, "kv_heads": 1, "ffn": 32, "vocab": 300, "tie_embeddings": True, "init_std": 0.5},
        "min_pixels": 64,
        "max_pixels": 1024,
        "context": 128,
    }
)


def picture(value: int, form: str = "PNG", size: tuple[int, int] = (5, 4)) -> bytes:
    """The file of a picture whose pixels are all different for different values."""
    buffer = io.BytesIO()
    Image.new("RGB", size, (value % 256, value // 256 % 256, 7)).save(buffer, form)
    return buffer.getvalue()


def row(row_id: str, answer: str = "red", images: list[bytes] | None = None, source: str = "a", language: str = "en") -> dict[str, Any]:
    """A canonical row."""
    return {
        "id": row_id,
        "images": [{"bytes": b, "path": f"{row_id}-{i}.png"} for i, b in enumerate(images or [])],
        "messages": [{"role": "user", "content": "<image>\n" * len(images or []) + "What?"}, {"role": "assistant", "content": answer}],
        "source": source,
        "language": language,
        "category": "qa",
        "license": "MIT",
        "verdicts": [],
    }


def table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def ingested(source: str, rows: list[dict[str, Any]], refused: int = 0, shard_rows: int = 3) -> None:
    """Writes the output of the step `ingest-<source>` into the current directory."""
    folder = Path("out", f"ingest-{source}", "data")
    write_shards(table(rows), folder, shard_rows)
    bad = [{"source": source, "file": "raw.json", "row": i + 1, "id": "", "reason": "no_answer", "detail": "empty"} for i in range(refused)]
    write_parquet(pa.Table.from_pylist(bad, schema=QUARANTINE_SCHEMA), folder / "quarantine.parquet")


def scorer(folder: Path, texts: list[str]) -> Path:
    """A model folder with random weights and a tokenizer of these texts."""
    tokenizer = train_tokenizer(texts, MODEL.llm.vocab)
    save_model(build_model(MODEL, tokenizer, seed=0), build_processor(MODEL, tokenizer), folder)
    return folder
