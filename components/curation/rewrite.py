"""Step `rewrite-<source>`: the rows of a source as annotators write them anew. What a row said before stands in its verdicts.

Rows keep their order. A few are in memory at a time; answers that were paid for are kept on disk, so a step that is tried again goes on where it was.
"""

import json
import logging
from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from components.curation.filter import FIX, KEEP, UNJUDGED
from components.curation.rewriter import Change, Rewriter
from components.curation.rewriters import REWRITERS
from components.curation.row import Row
from components.data.canonical import QUARANTINE_SCHEMA, SCHEMA, ShardWriter, read_batches, shards, write_parquet
from components.progress import track
from components.recipe.rewrites import Rewrite
from components.step import Step

logger = logging.getLogger(__name__)

SHARD_ROWS = 4096
"""Largest number of rows in a shard."""
ROWS = 64
"""Rows that are rewritten at once."""


class Rewriting:
    """All rewrites of a source, in their order, with their counts and the rows that they refuse."""

    def __init__(self, step: Step):
        """Raises what opening an annotator raises."""
        self.source = step.item or ""
        sections = TypeAdapter(list[Rewrite]).validate_python(step.param(f"sources.{self.source}.rewrites"))
        self.rewriters: list[Rewriter[Any]] = [REWRITERS[section.kind](section, step) for section in sections]
        self.counts: list[Counter[str]] = [Counter() for _ in sections]
        self.refused: list[dict[str, Any]] = []

    def rewrite(self, rows: list[dict[str, Any]], file: str, start: int) -> list[dict[str, Any]]:
        """Some canonical rows, from row `start` (counted from 1) of a shard, as they are afterwards; without those that are refused."""
        places = list(range(start, start + len(rows)))
        for rewriter, counts in zip(self.rewriters, self.counts, strict=True):
            changes = rewriter.rewrite([Row(row) for row in rows])
            gone: set[int] = set()
            for i, (row, change) in enumerate(zip(rows, changes, strict=True)):
                became = self._apply(rewriter, row, change)
                counts.update(["seen", became])
                if became == "quarantined":
                    gone.add(i)
                    reason = {"reason": UNJUDGED, "detail": f"{rewriter.kind}: {change.problem}"}
                    self.refused.append({"source": self.source, "file": file, "row": places[i], "id": row["id"], **reason})
            left = [i for i in range(len(rows)) if i not in gone]
            rows, places = [rows[i] for i in left], [places[i] for i in left]
        return rows

    @staticmethod
    def _apply(rewriter: Rewriter[Any], row: dict[str, Any], change: Change) -> str:
        """Writes a change into a row, with its verdict. Returns what became of it: changed, passed, unjudged or quarantined."""
        verdict = {"filter": rewriter.kind, "version": rewriter.version, "action": KEEP, "score": None, "reason": "", "before": None}
        if change.problem:
            if getattr(rewriter.config, "unjudged", KEEP) != KEEP:
                return "quarantined"
            row["verdicts"] = [*row["verdicts"], {**verdict, "reason": UNJUDGED}]
            return "unjudged"
        if change.messages is None or change.messages == row["messages"]:
            return "passed"
        row["verdicts"] = [*row["verdicts"], {**verdict, "action": FIX, "before": row["messages"]}]
        row["messages"], row["language"] = change.messages, change.language or row["language"]
        return "changed"

    def summary(self) -> list[dict[str, Any]]:
        """Each rewrite with its annotators, its wordings, and what became of the rows that it saw."""
        kinds = ("seen", "changed", "passed", "unjudged", "quarantined")
        return [
            {"kind": r.kind, "version": r.version, "annotators": r.annotators, "prompts": r.prompts, **{k: counts[k] for k in kinds}}
            for r, counts in zip(self.rewriters, self.counts, strict=True)
        ]


def run(step: Step) -> None:
    """Rewrites the source that the step is named after."""
    rewriting = Rewriting(step)
    before = step.input(f"ingest-{rewriting.source}")
    refused = pq.read_table(before / "quarantine.parquet", schema=QUARANTINE_SCHEMA)
    rows_in = 0
    files = shards(before)
    with ShardWriter(step.data, SHARD_ROWS) as writer:
        for file in track(files, "rewrite", len(files)):
            row = 1
            for group in read_batches(file):
                for batch in group.to_batches(max_chunksize=ROWS):
                    rows = rewriting.rewrite(batch.to_pylist(), file.as_posix(), row)
                    writer.add(pa.Table.from_pylist(rows, schema=SCHEMA))
                    row += batch.num_rows
            rows_in += row - 1
    refused = pa.concat_tables([refused, pa.Table.from_pylist(rewriting.refused, schema=QUARANTINE_SCHEMA)])
    write_parquet(refused, step.data / "quarantine.parquet")
    summary = {"rows_in": rows_in, "rows_out": writer.num_rows, "quarantined": len(rewriting.refused), "rewrites": rewriting.summary()}
    step.side("summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    for line in rewriting.summary():
        logger.info("%s", " ".join(f"{k}={line[k]}" for k in ("kind", "seen", "changed", "passed", "unjudged", "quarantined")))
