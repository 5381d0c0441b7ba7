"""`card.json` and `card.html`: the data card of a curation. Same rows and verdicts, same bytes."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from components.curation.card import gallery
from components.curation.card.groups import ATTRIBUTES, Groups
from components.curation.card.histogram import Chart, chart, histogram
from components.curation.card.lengths import lengths
from components.curation.filter import DROP, FIX, KEEP, QUARANTINE, TAG
from components.data.canonical import read_shard, shards
from components.data.quarantine import REASONS
from components.pages import scale
from components.pages.page import render
from components.step import Step

if TYPE_CHECKING:
    from components.curation.curate import Judgement

SCHEMA = 1
MOST_GROUPS = 12
"""Histograms of one filter: those of its largest groups."""
MOST_VALUES = 20
"""Sources, languages or categories in a table of the page; card.json has all."""
QUARANTINED = 3
"""Examples of one reason for quarantine."""
TITLES = {DROP: "dropped", TAG: "tagged", FIX: "fixed", KEEP: "kept"}


def write(
    step: Step,
    *,
    counts: Mapping[str, Any],
    index: pa.Table,
    judgements: Sequence["Judgement"],
    taken: np.ndarray,
    refused: pa.Table,
    tokenizer: Path | None,
) -> None:
    """Writes both files beside the rows that the step has written.

    `counts`: the content of counts.json; `index`: id, source, language and category of all ingested rows; `taken`: how often each of them is among the
    output, int64 (rows,); `refused`: the quarantine; `tokenizer`: a model folder whose tokens answers are measured in.
    """
    groups, every = Groups(index), np.arange(index.num_rows)
    totals = {key: counts[key] for key in ("rows_in", "rows_kept", "dropped", "quarantined")}
    content: dict[str, Any] = {
        "schema": SCHEMA,
        **totals,
        "rows_written": int(taken.sum()),
        "ingested": groups.count(every),
        "kept": groups.count(np.flatnonzero(taken)),
        "written": groups.count(every, taken),
        "refused_by_ingest": dict(sorted(Counter(refused["source"].to_pylist()[: len(refused) - _quarantined(judgements)]).items())),
        "rewrites": _rewrites(step),
        "filters": [_filter(judgement, numbers, groups, index) for judgement, numbers in zip(judgements, counts["filters"], strict=True)],
        "answers": lengths(step.data, list(step.param("sources")), step.seed, tokenizer),
        "quarantine": _quarantine(refused),
    }
    shown = _examples(index, judgements, taken, step.seed)
    rows = gallery.fetch([f for f in sorted(step.data.iterdir()) if f.is_dir()], {s.place for _, _, some in shown for s in some})
    galleries = [Gallery(title, total, [gallery.example(rows[s.place], s) for s in some]) for title, total, some in shown]
    content["examples"] = {g.title: [{"source": e.source, "id": e.id, "reason": e.reason, "score": e.score} for e in g.examples] for g in galleries}
    step.side("card.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    page = render(Path(__file__).with_name("card.html.jinja"), card=content, tables=_tables(content), charts=_charts(content), galleries=galleries, size=scale)
    step.side("card.html").write_text(page, encoding="utf-8")


def _quarantined(judgements: Sequence["Judgement"]) -> int:
    return sum(int((j.ends() == QUARANTINE).sum()) for j in judgements)


def _rewrites(step: Step) -> dict[str, dict[str, dict[str, int]]]:
    """Source -> kind of rewrite -> action -> rows, of the sources that are rewritten before curation; what that put in quarantine is counted there."""
    counted: dict[str, dict[str, Counter[str]]] = {
        name: {section["kind"]: Counter() for section in source["rewrites"]} for name, source in step.param("sources").items() if source.get("rewrites")
    }
    folders = [f for f in sorted(step.data.iterdir()) if f.is_dir()] if counted else []
    for file in (file for folder in folders for file in shards(folder)):
        rows = read_shard(file, ["source", "verdicts"])
        for source, verdicts in zip(rows["source"].to_pylist(), rows["verdicts"].to_pylist(), strict=True):
            for verdict in verdicts if source in counted else []:
                if verdict["filter"] in counted[source]:
                    counted[source][verdict["filter"]][verdict["action"]] += 1
    return {source: {kind: dict(sorted(n.items())) for kind, n in kinds.items()} for source, kinds in counted.items()}


def _filter(judgement: "Judgement", numbers: Mapping[str, Any], groups: Groups, index: pa.Table) -> dict[str, Any]:
    """What a filter did, as in counts.json, and to which rows."""
    actions, ends = judgement.actions(), judgement.ends()
    return {
        **numbers,
        "seen_by": groups.count(judgement.rows),
        "out_by": groups.count(judgement.rows[ends != KEEP]),
        "reasons": {a: dict(sorted(judgement.reasons(a).items())) for a in (DROP, QUARANTINE, TAG, FIX) if (actions == a).any()},
        "scores": _scores(judgement, ends == KEEP, index),
        "report": judgement.filter.report(),
    }


def _scores(judgement: "Judgement", kept: np.ndarray, index: pa.Table) -> dict[str, Any]:
    """Histograms by `source/language` where the filter cuts each by itself, else one of all rows."""
    scores = judgement.verdicts["score"].to_numpy()
    thresholds = judgement.filter.thresholds()
    if thresholds is None:
        found = histogram(scores, kept)
        return {"all": found} if found else {}
    here = index.take(pa.array(judgement.rows))
    group = np.array([f"{s}/{lang}" for s, lang in zip(here["source"].to_pylist(), here["language"].to_pylist(), strict=True)], dtype=object)
    largest = sorted(Counter(group.tolist()).items(), key=lambda item: (-item[1], item[0]))[:MOST_GROUPS]
    made = {name: histogram(scores[group == name], kept[group == name], thresholds.get(name)) for name, _ in sorted(largest)}
    return {name: h for name, h in made.items() if h}


def _quarantine(refused: pa.Table) -> dict[str, Any]:
    """Reason -> how many rows, from where, what it means, and the first of them."""
    found: dict[str, dict[str, Any]] = {}
    for row in refused.to_pylist():
        entry = found.setdefault(row["reason"], {"rows": 0, "means": REASONS.get(row["reason"], ""), "sources": Counter(), "examples": []})
        entry["rows"] += 1
        entry["sources"][row["source"]] += 1
        if len(entry["examples"]) < QUARANTINED:
            entry["examples"].append({key: row[key] for key in ("source", "file", "row", "id", "detail")})
    return {reason: {**entry, "sources": dict(sorted(entry["sources"].items()))} for reason, entry in sorted(found.items())}


@dataclass(frozen=True)
class Gallery:
    """Examples under one heading, of how many."""

    title: str
    total: int
    examples: list[gallery.Example]


def _examples(index: pa.Table, judgements: Sequence["Judgement"], taken: np.ndarray, seed: int) -> list[tuple[str, int, list[gallery.Shown]]]:
    """(heading, rows in all, those to show): what each filter did, then what was kept."""
    found = []
    for number, judgement in enumerate(judgements):
        actions = judgement.actions()
        for action in (DROP, FIX, TAG):
            chosen = np.flatnonzero(actions == action)
            if action != DROP:  # a row that a later filter took out is shown there
                chosen = chosen[taken[judgement.rows[chosen]] > 0]
            if len(chosen):
                said = judgement.verdicts.select(["reason", "score"]).take(pa.array(chosen))
                drawn = gallery.draw(index.take(pa.array(judgement.rows[chosen])), said, gallery.PER_FILTER, (seed, number))
                found.append((f"{judgement.filter.kind}: {TITLES[action]}", len(chosen), [gallery.Shown(judgement.filter.kind, **row) for row in drawn]))
    kept = np.flatnonzero(taken)
    if len(kept):
        nothing = pa.table({"reason": [""] * len(kept), "score": pa.nulls(len(kept), pa.float64())})
        drawn = gallery.draw(index.take(pa.array(kept)), nothing, gallery.KEPT, (seed, len(judgements)))
        found.append((TITLES[KEEP], len(kept), [gallery.Shown("", **row) for row in drawn]))
    return found


def _tables(content: Mapping[str, Any]) -> dict[str, list[tuple[str, int, list[int], int, int]]]:
    """Attribute -> (value, rows ingested, rows out at each filter, rows kept, rows written), the largest first."""
    tables = {}
    for attribute in ATTRIBUTES:
        largest = sorted(content["ingested"][attribute].items(), key=lambda item: (-item[1], item[0]))[:MOST_VALUES]
        tables[attribute] = [
            (value, n, [f["out_by"][attribute][value] for f in content["filters"]], content["kept"][attribute][value], content["written"][attribute][value])
            for value, n in largest
        ]
    return tables


def _charts(content: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, Chart]]]]:
    """(filter, (group, chart)) of every filter that gave scores; last the lengths of the answers."""
    made = [(f["kind"], [(group, chart(h)) for group, h in f["scores"].items()]) for f in content["filters"] if f["scores"]]
    answers = content["answers"]["histogram"]
    return [*made, ("", [(content["answers"]["unit"], chart(answers))])] if answers else made
