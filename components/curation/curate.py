"""Step `curate`: which ingested rows reach training. Filters give verdicts, in the order of the recipe; this step drops.

Rows keep the order of the recipe's sources and of their files. A filter sees only what the ones before it kept, with the messages that they gave it.
"""

import hashlib
import json
import logging
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.curation.card import card
from components.curation.fact_store import FactStore
from components.curation.facts import rows_of
from components.curation.filter import DROP, FIX, KEEP, QUARANTINE, TAG, UNJUDGED, Filter, ModelFilter, RowFilter
from components.curation.filters import filters_of
from components.curation.mixture import Mixing, changes_nothing
from components.curation.row import Row
from components.curation.shard_engine import find
from components.data.canonical import QUARANTINE_SCHEMA, SCHEMA, ShardWriter, read_batches, read_shard, shards, write_parquet
from components.errors import DataError, RecipeError
from components.profile import step_profile
from components.progress import track
from components.recipe.curation import Curation, stage_of
from components.step import Step

logger = logging.getLogger(__name__)

DROPPED = "dropped"


class Shard(NamedTuple):
    """An ingested file and where its rows stand among all rows."""

    source: str
    file: Path
    rows: slice


class Judgement(NamedTuple):
    """What one filter said: `rows` (indices among all rows), and their verdicts."""

    filter: Filter[Any]
    rows: np.ndarray
    verdicts: pa.Table

    def actions(self) -> np.ndarray:
        return np.array(self.verdicts["action"].to_pylist(), dtype=object)

    def ends(self) -> np.ndarray:
        """Where the rows go: a tagged row is kept, and so is a fixed one."""
        actions = self.actions()
        return np.where((actions == TAG) | (actions == FIX), KEEP, actions)

    def fixed(self) -> dict[int, list[dict[str, str]]]:
        """What fixed rows say from now on, by their indices."""
        found = np.flatnonzero(self.actions() == FIX)
        return dict(zip(self.rows[found].tolist(), self.verdicts["messages"].take(pa.array(found)).to_pylist(), strict=True))

    def reasons(self, action: str) -> Counter[str]:
        """How often each reason led to `action`."""
        return Counter(self.verdicts.filter(pa.array(self.actions() == action))["reason"].to_pylist())

    def counts(self) -> dict[str, Any]:
        """Rows seen and what became of them: `tagged` and `fixed` ones are among the kept; `unjudged` ones are kept or dropped.

        `threshold` by source and language, null where not finite.
        """
        end = Counter(self.ends().tolist())
        found = self.filter.thresholds()
        threshold = {k: v if math.isfinite(v) else None for k, v in found.items()} if found is not None else None
        numbers = {"seen": len(self.rows), "kept": end[KEEP], "dropped": end[DROP], "quarantined": end[QUARANTINE]}
        numbers |= {"tagged": self.reasons(TAG).total(), "fixed": self.reasons(FIX).total(), "unjudged": (self.reasons(KEEP) + self.reasons(DROP))[UNJUDGED]}
        return {"kind": self.filter.kind, "version": self.filter.version, **numbers, "threshold": threshold, **self.filter.record()}


class Corpus:
    """All ingested rows: their shards, their small columns, which of them are still there, and what the fixed ones say."""

    def __init__(self, step: Step, sources: list[str]):
        self.sources = sources
        self.shards: list[Shard] = []
        columns = ["id", "source", "language", "category"]
        small, start = [SCHEMA.empty_table().select(columns)], 0
        for source in sources:
            for file in shards(step.rows(source)):
                small.append(read_shard(file, columns))
                self.shards.append(Shard(source, file, slice(start, start + small[-1].num_rows)))
                start += small[-1].num_rows
        self.index = pa.concat_tables(small)
        self.alive = np.ones(start, dtype=bool)
        self.fixed: dict[int, list[dict[str, str]]] = {}
        self.store = FactStore()
        self.refused = pa.concat_tables([_refused_by_ingest(step.rows(source)) for source in sources])

    def look(self, filters: Sequence[RowFilter[Any]]) -> list[list[pa.ChunkedArray]]:
        """What each filter finds in the rows of each shard, by filter, then by shard; pictures are decoded once."""
        if not filters:
            return []
        kept = {number: self.store.get(f"rows-{number:05d}") for number in range(len(self.shards))}
        found = {number: facts for number, facts in kept.items() if facts is not None}
        left = {number: (shard.file, shard.source) for number, shard in enumerate(self.shards) if number not in found}
        for number, facts in track(find(left, filters, step_profile()), "rows", len(left)):
            self.store.put(f"rows-{number:05d}", facts)
            found[number] = facts
        return [[found[number].column(place) for number in range(len(self.shards))] for place in range(len(filters))]

    def judge(self, judging: Filter[Any], place: int, looked: Sequence[pa.ChunkedArray]) -> Judgement:
        """Shows the rows that are still there to the filter at `place` and takes out those that it does not keep.

        `looked`: its facts, for a row filter.
        """
        facts: list[pa.ChunkedArray] = []
        seen = [np.zeros(0, dtype=np.int64)]
        for number, shard in enumerate(track(self.shards, judging.kind, len(self.shards))):
            here = np.flatnonzero(self.alive[shard.rows])
            if judging.looks_at(shard.source) and len(here):
                if isinstance(judging, RowFilter):
                    facts.append(self._again(judging, shard, looked[number]).take(pa.array(here)))
                else:
                    facts.append(self._ask(judging, place, shard, here))
                seen.append(here + shard.rows.start)
        rows = np.concatenate(seen)
        chunks = [chunk for found in facts for chunk in found.chunks]
        shown = self.index.take(pa.array(rows)).append_column("facts", pa.chunked_array(chunks, type=facts[0].type if facts else pa.null()))
        judgement = Judgement(judging, rows, judging.judge(shown))
        self.alive[rows[judgement.ends() != KEEP]] = False
        self.fixed |= judgement.fixed()
        return judgement

    def mix(self, mixing: Mixing) -> Judgement:
        """Takes the mixture of the rows that are still there."""
        looked_at = np.array([mixing.looks_at(source) for source in self.index["source"].to_pylist()], dtype=bool)
        rows = np.flatnonzero(self.alive & looked_at)
        return Judgement(mixing, rows, mixing.judge(self.index.take(pa.array(rows))))

    def _again(self, judging: RowFilter[Any], shard: Shard, looked: pa.ChunkedArray) -> pa.ChunkedArray:
        """The facts of a shard, looked at again where a filter has fixed the row since."""
        here = self._fixed_in(shard)
        if not here:
            return looked
        facts = looked.to_pylist()
        for i, row in zip(here, rows_of(self._current(read_shard(shard.file, list(Row.COLUMNS)), shard, np.array(here))), strict=True):
            facts[i] = judging.fact(row)
        return pa.chunked_array([pa.array(facts, type=judging.fact_type)])

    def _ask(self, judging: Filter[Any], place: int, shard: Shard, here: np.ndarray) -> pa.ChunkedArray:
        assert isinstance(judging, ModelFilter)
        fixed = [(i, self.fixed[shard.rows.start + i]) for i in self._fixed_in(shard)]
        shown = hashlib.sha256(here.tobytes() + json.dumps(fixed).encode()).hexdigest()  # which rows, and what they say, is up to the filters before
        name = f"{place}-{judging.kind}-{shard.rows.start}-{shown[:16]}"
        kept = self.store.get(name)
        if kept is None:
            facts = judging.facts(self._current(read_shard(shard.file, list(judging.columns)), shard, here))
            kept = pa.table({"facts": facts})
            self.store.put(name, kept)
        return kept["facts"]

    def _current(self, rows: pa.Table, shard: Shard, here: np.ndarray) -> pa.Table:
        """Of the rows of a shard those at `here`, with the messages that filters have given them."""
        chosen = rows if len(here) == rows.num_rows else rows.take(pa.array(here))
        if "messages" not in chosen.column_names or not self._fixed_in(shard):
            return chosen
        messages = [self.fixed.get(shard.rows.start + i, said) for i, said in zip(here.tolist(), chosen["messages"].to_pylist(), strict=True)]
        return _with_column(chosen, "messages", messages)

    def _fixed_in(self, shard: Shard) -> list[int]:
        """Which rows of a shard are fixed and still there."""
        return [i - shard.rows.start for i in sorted(self.fixed) if shard.rows.start <= i < shard.rows.stop and self.alive[i]]


def _with_column(rows: pa.Table, name: str, values: list[Any]) -> pa.Table:
    field = SCHEMA.field(name)
    return rows.set_column(rows.schema.get_field_index(name), field, pa.array(values, type=field.type))


def _refused_by_ingest(folder: Path) -> pa.Table:
    file = folder / "quarantine.parquet"
    try:
        return pq.read_table(file, schema=QUARANTINE_SCHEMA)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{file}: not readable ({error}): run the step that writes it again") from error


class Ledger:
    """All verdicts in the order in which they were given, and where every row goes: `keep`, `drop` or `quarantine`."""

    def __init__(self, num_rows: int):
        self.judgements: list[Judgement] = []
        self.last = np.full(num_rows, KEEP, dtype=object)
        self._times = np.ones(num_rows, dtype=np.int64)

    def add(self, judgement: Judgement) -> None:
        """Writes down what a filter said."""
        self.judgements.append(judgement)
        self.last[judgement.rows] = judgement.ends()

    def mix(self, judgement: Judgement) -> None:
        """Writes down what the mixture takes, and how often."""
        self.add(judgement)
        self._times[judgement.rows] = judgement.verdicts["score"].to_numpy()

    def taken(self) -> np.ndarray:
        """How often each row is written, int64 (rows,); 0 for one that is not kept."""
        return np.where(self.last == KEEP, self._times, 0)

    def within(self, rows: slice) -> Iterator[tuple[int, dict[str, Any]]]:
        """(row counted from the slice's start, verdict with filter, version and detail) for a slice of all rows, filter by filter."""
        for judgement in self.judgements:
            start, stop = np.searchsorted(judgement.rows, [rows.start, rows.stop]).tolist()
            head = {"filter": judgement.filter.kind, "version": judgement.filter.version}
            verdicts = judgement.verdicts.slice(start, stop - start).to_pylist()
            for row, verdict in zip(judgement.rows[start:stop].tolist(), verdicts, strict=True):
                yield row - rows.start, {**head, **verdict}


def _refused_here(corpus: Corpus, ledger: Ledger) -> pa.Table:
    """Quarantine rows of curation: `file` is the ingested shard, `row` counts from 1 in it."""
    found = []
    for shard in corpus.shards:
        for row, verdict in sorted(ledger.within(shard.rows), key=itemgetter(0)):
            if verdict["action"] == QUARANTINE:
                row_id = corpus.index["id"][shard.rows.start + row].as_py()
                place = {"source": shard.source, "file": shard.file.as_posix(), "row": row + 1, "id": row_id}
                found.append({**place, "reason": verdict["reason"], "detail": verdict["detail"]})
    return pa.Table.from_pylist(found, schema=QUARANTINE_SCHEMA)


def _as_judged(rows: pa.Table, places: slice, ledger: Ledger) -> pa.Table:
    """The rows at `places` with their verdicts and, where a filter has fixed them, with their last messages."""
    verdicts = rows["verdicts"].to_pylist()
    messages: list[Any] | None = None
    for row, verdict in ledger.within(places):
        if verdict["action"] == FIX:
            messages = messages or rows["messages"].to_pylist()
            verdict["before"], messages[row] = messages[row], verdict["messages"]
        verdicts[row].append(verdict)  # `messages` is no field of a verdict and is left out by the type
    return _with_column(rows if messages is None else _with_column(rows, "messages", messages), "verdicts", verdicts)


def _write(corpus: Corpus, ledger: Ledger, data: Path, shard_rows: int) -> None:
    """Kept rows into `<source>/`, dropped ones into `dropped/`, all with their verdicts; a row group and what the writers hold in memory."""
    taken = ledger.taken()
    with ShardWriter(data / DROPPED, shard_rows) as dropped:
        for source in corpus.sources:
            with ShardWriter(data / source, shard_rows) as kept:
                for shard in (s for s in corpus.shards if s.source == source):
                    stop = shard.rows.start
                    for table in read_batches(shard.file):
                        places = slice(stop, stop := stop + table.num_rows)
                        rows, times = _as_judged(table, places, ledger), taken[places]
                        for copy in range(times.max(initial=0)):
                            kept.add(rows.filter(pa.array(times > copy)))
                        dropped.add(rows.filter(pa.array(ledger.last[places] == DROP)))


def _counts(corpus: Corpus, ledger: Ledger, refused: pa.Table) -> dict[str, Any]:
    """counts.json: what came in, what stays, and why the rest does not."""
    place = np.array(corpus.index["source"].to_pylist(), dtype=object)
    refused_from = Counter(refused["source"].to_pylist())
    per_source = {}
    for source in corpus.sources:
        last = Counter(ledger.last[place == source].tolist())
        numbers = {"rows_kept": last[KEEP], "quarantined": refused_from[source], "dropped": last[DROP]}
        per_source[source] = {"rows_in": sum(numbers.values()), **numbers}
    reasons = Counter(refused["reason"].to_pylist())
    for judgement in ledger.judgements:
        reasons.update(judgement.reasons(DROP))
    totals = {key: sum(numbers[key] for numbers in per_source.values()) for key in ("rows_in", "rows_kept", "quarantined", "dropped")}
    found = {**totals, "by_reason": dict(sorted(reasons.items())), "per_source": per_source, "filters": [j.counts() for j in ledger.judgements]}
    mixing = [j.filter for j in ledger.judgements if isinstance(j.filter, Mixing)]
    return {**found, "mixture": mixing[0].report()} if mixing else found


def _check_limit(counts: dict[str, Any], refused: pa.Table, limit: int) -> None:
    """Raises DataError when a larger share of the rows than `limit` percent is in quarantine."""
    rows, bad = counts["rows_in"], counts["quarantined"]
    if bad * 100 > rows * limit:
        reasons = ", ".join(f"{reason} {n}" for reason, n in Counter(refused["reason"].to_pylist()).most_common())
        first = refused.slice(0, 1).to_pylist()[0]
        place = f"the first is {first['file']}, row {first['row']}: {first['detail']}"
        raise DataError(
            f"curation.max_quarantine_percent: {bad} of {rows} rows are in quarantine, more than {limit} % ({reasons}); {place}; mend the sources or raise it"
        )


def run(step: Step) -> None:
    """Curates all sources of the recipe."""
    config = step.config("curation", Curation)
    sources = list(step.param("sources"))
    if DROPPED in sources:
        raise RecipeError(f"sources.{DROPPED}: this name is taken by the folder of dropped rows: rename the source")
    corpus = Corpus(step, sources)
    ledger = Ledger(len(corpus.alive))
    filters = filters_of(config, step)
    row_filters = [judging for judging in filters if isinstance(judging, RowFilter)]
    looked = iter(corpus.look(row_filters))
    for place, judging in enumerate(filters):
        judgement = corpus.judge(judging, place, next(looked) if isinstance(judging, RowFilter) else [])
        ledger.add(judgement)
        logger.info("%s", " ".join(f"{k}={v}" for k, v in judgement.counts().items()))
    if not changes_nothing(config.mixture):
        ledger.mix(corpus.mix(Mixing(config.mixture, step)))
    refused = pa.concat_tables([corpus.refused, _refused_here(corpus, ledger)])
    counts = _counts(corpus, ledger, refused)
    _check_limit(counts, refused, config.max_quarantine_percent)
    _write(corpus, ledger, step.data, config.shard_rows)
    write_parquet(refused, step.data / "quarantine.parquet")
    asked = [stage for section in config.filters if (stage := stage_of(section))]
    card.write(
        step,
        counts=counts,
        index=corpus.index,
        judgements=ledger.judgements,
        taken=ledger.taken(),
        refused=refused,
        tokenizer=step.input(asked[0]) if asked else None,
    )
    step.side("counts.json").write_text(json.dumps(counts, indent=1) + "\n", encoding="utf-8")
    logger.info("kept %d of %d rows, %d dropped, %d in quarantine", counts["rows_kept"], counts["rows_in"], counts["dropped"], counts["quarantined"])
