"""A review sheet: one HTML file with rows that wait for a review, their pictures, and inputs for the verdicts. It asks nobody and needs no server."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from components.curation.human_check import is_unreviewed, shards_of
from components.curation.pictures import as_sent, data_uri
from components.curation.row import Row
from components.data.canonical import read_batches, shards
from components.data.images import ImageError

LONGEST_SIDE = 768
"""Of a picture on the sheet, pixels."""
ROWS = 64
"""Rows that are copied out of a shard at once."""


def waiting(curated: Path) -> Iterator[dict[str, Any]]:
    """Canonical rows that wait for a review, from the output folder of `curate`."""
    for file in shards(shards_of(curated)):
        for group in read_batches(file):
            for batch in group.to_batches(max_chunksize=ROWS):
                yield from filter(is_unreviewed, batch.to_pylist())


def write_sheet(curated: Path, page: Path, limit: int) -> int:
    """Writes the first `limit` rows that wait. Returns how many are on the sheet."""
    rows = [_shown(row) for row in itertools.islice(waiting(curated), limit)]
    text = json.dumps(rows, ensure_ascii=False).replace("<", "\\u003c")  # nothing in a row can end the script element
    folder = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined)
    html = folder.get_template("review_sheet.html.jinja").render(rows=text, number=len(rows))
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(html, encoding="utf-8")
    return len(rows)


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    seen = Row(row)
    head = {"source": row["source"], "id": row["id"], "digest": seen.digest.hex(), "language": row["language"]}
    notes = [f"{v['filter']}: {v['action']} {v['reason']}".strip() for v in row["verdicts"][:-1] if v["reason"] or v["action"] != "keep"]
    return {**head, "messages": row["messages"], "pictures": [_picture(i["bytes"]) for i in row["images"]], "notes": notes}


def _picture(image_bytes: bytes) -> str:
    """A `data:` address; empty for a picture that cannot be shown."""
    try:
        return data_uri(as_sent(image_bytes, LONGEST_SIDE))
    except ImageError:
        return ""
