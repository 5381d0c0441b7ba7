"""The fate of one sample, told from what ingest and curation have written: where it came from, what every filter said, where it ended."""

import difflib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from components.data.canonical import QUARANTINE_SCHEMA, SCHEMA, read_rows, read_shard, shards
from components.errors import DataError

NEAR = 3
"""Ids that are offered for one that nobody knows."""
COMPARED = 20_000
"""Ids that an unknown one is compared with: those that begin or end as it does."""
COLUMNS = [name for name in SCHEMA.names if name != "images"]


def fates(root: Path, sample: str) -> list[dict[str, Any]]:
    """What became of the samples of this id; `sample` is an id, `SOURCE/ID`, or `FILE:ROW` of a row in quarantine. `root` holds the steps' outputs, `out/`.

    `{id, source, end, file, row, times, reason, detail, language, category, messages, verdicts}`: `end` is kept, dropped or quarantined; `file` and `row`
    (from 1) say where it is now, of a row in quarantine where it was; `times` how often it is among the kept rows. A verdict has filter, version, action,
    score, threshold, reason, detail, before. Raises DataError for an id that no source has, with near ones, and when an output is damaged.
    """
    data = root / "out/curate/data"
    folders = sorted(f for f in data.iterdir() if f.is_dir())
    found = [*(fate for folder in folders for fate in _in_shards(folder, sample)), *_in_quarantine(data / "quarantine.parquet", root, sample)]
    if not found:
        near = _near(folders, data / "quarantine.parquet", sample)
        raise DataError(f"{sample}: no source has a sample of this id{near}; give an id of the source files, or SOURCE/ID")
    thresholds = {f["kind"]: f["threshold"] or {} for f in json.loads((root / "out/curate/counts.json").read_text(encoding="utf-8"))["filters"]}
    for fate in found:
        for verdict in fate["verdicts"]:
            verdict["threshold"] = thresholds.get(verdict["filter"], {}).get(f"{fate['source']}/{fate['language']}")
        fate["file"] = Path(fate["file"]).relative_to(root).as_posix() if Path(fate["file"]).is_relative_to(root) else fate["file"]
    return found


def _in_shards(folder: Path, sample: str) -> Iterator[dict[str, Any]]:
    """Samples among the kept rows of a source, or among the dropped ones; one that is repeated comes once."""
    seen: dict[tuple[str, str], dict[str, Any]] = {}
    for file in shards(folder):
        small = read_shard(file, ["id", "source"])
        names = zip(small["id"].to_pylist(), small["source"].to_pylist(), strict=True)
        places = [i for i, (row_id, source) in enumerate(names) if sample in (row_id, f"{source}/{row_id}")]
        for place, row in zip(places, read_rows(file, places, COLUMNS).to_pylist(), strict=True):
            kept = folder.name == row["source"]
            if (row["source"], row["id"]) in seen:
                seen[row["source"], row["id"]]["times"] += 1
                continue
            last = row["verdicts"][-1] if not kept else {"reason": "", "detail": ""}
            end = {"end": "kept" if kept else "dropped", "file": file, "row": place + 1, "times": int(kept), "reason": last["reason"], "detail": last["detail"]}
            seen[row["source"], row["id"]] = {**row, **end}
    yield from seen.values()


def _in_quarantine(file: Path, root: Path, sample: str) -> Iterator[dict[str, Any]]:
    """Samples that ingest or a filter refused; what the latter say is still in the ingested shard."""
    for row in _quarantine(file):
        if sample in (row["id"], f"{row['source']}/{row['id']}", f"{row['file']}:{row['row']}"):
            shard = root / row["file"]
            known = {"language": None, "category": None, "messages": None, "verdicts": []}
            if shard.name.startswith("part-") and shard.is_file():
                known = read_rows(shard, [row["row"] - 1], list(known)).to_pylist()[0]
            yield {**row, **known, "end": "quarantined", "times": 0}


def _quarantine(file: Path) -> list[dict[str, Any]]:
    try:
        return pq.read_table(file, schema=QUARANTINE_SCHEMA).to_pylist()
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{file}: not readable ({error}): run the step that writes it again") from error


def _near(folders: list[Path], quarantine: Path, sample: str) -> str:
    """`; did you mean a, b?`"""
    ids = {row_id for folder in folders for file in shards(folder) for row_id in read_shard(file, ["id"])["id"].to_pylist()}
    ids |= {row["id"] for row in _quarantine(quarantine) if row["id"]}
    name = sample.rpartition("/")[2]
    alike = sorted(i for i in ids if i[:3] == name[:3] or i[-3:] == name[-3:] or i in sample or sample in i)[:COMPARED]
    near = difflib.get_close_matches(name, alike, NEAR)
    return f"; did you mean {', '.join(near)}?" if near else ""
