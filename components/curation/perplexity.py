"""Filter `perplexity`: keeps the rows whose answers a model finds most likely (POINTS1.0 section 3.2, POINTS1.5 section 3).

Each source and language is ranked by itself. Exactly `scored * keep_percent // 100` rows are kept, in whole numbers. A row that cannot be
scored (too long, a picture that cannot be read, more than one answer to a fixed question) is not ranked, and dropped with a reason of its own.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.curation.facts import rows_of
from components.curation.filter import DROP, KEEP, ModelFilter, verdicts
from components.curation.prompts import languages
from components.curation.row import Row, without_marks
from components.data.images import ImageError
from components.profile import step_profile
from components.recipe.curation import Perplexity as Config
from components.recipe.published import Published
from components.step import Step

if TYPE_CHECKING:
    from components.curation.picture_scorer import PictureScorer, Shown
    from components.curation.scorer import Scorer

REASON, NOT_SCORED = "high_perplexity", "not_scored"
NAMED = 20
"""Rows that could not be scored which counts.json names."""
ROWS = 512
"""Rows whose pictures are in memory at once."""


def keep_lowest(scores: np.ndarray, ids: pa.Array | pa.ChunkedArray, percent: int) -> np.ndarray:
    """Which rows have the `len(scores) * percent // 100` lowest scores, bool (rows,); of equal scores those with the lowest ids.

    `scores`: float64 (rows,), finite. Only the rows at the threshold are sorted by id.
    """
    number = len(scores) * percent // 100
    if not number:
        return np.zeros(len(scores), dtype=bool)
    threshold = np.partition(scores, number - 1)[number - 1]
    kept = scores < threshold
    equal = np.flatnonzero(scores == threshold)
    order = pc.call_function("sort_indices", [ids.take(pa.array(equal))]).to_numpy()
    kept[equal[order[: number - int(kept.sum())]]] = True
    return kept


class Perplexity(ModelFilter[Config]):
    """A training stage's language model scores the text alone; a published vision-language model sees the pictures too."""

    kind = "perplexity"
    columns = Row.COLUMNS

    def __init__(self, config: Config, step: Step):
        super().__init__(config, step)
        self._prompts = languages("perplexity.caption")
        self._scorer: Scorer | None = None
        self._seeing: PictureScorer | None = None
        self._thresholds: dict[str, float] = {}
        self._not_scored: list[str] = []
        sees = isinstance(config.scorer, Published)
        self.version = "-".join(["images-1", *(self._prompt_ids() if config.question == "caption" else ["own"])]) if sees else "text-2"
        if not sees:
            self.columns = ("messages",)

    def looks_at(self, source: str) -> bool:
        return source in self.config.sources

    def facts(self, rows: pa.Table) -> pa.Array:
        import torch

        torch.set_num_threads(step_profile().threads)
        if isinstance(self.config.scorer, str):
            from components.curation.scorer import Scorer

            scorer = self._scorer = self._scorer or Scorer(self.step.input(self.config.scorer))
            found = scorer.perplexities(rows["messages"].to_pylist())
            return pa.array(found, mask=~np.isfinite(found), type=pa.float64())
        from components.curation.picture_scorer import open_picture_scorer

        seeing = self._seeing = self._seeing or open_picture_scorer(self.config.scorer, _cache())
        return pa.array([score for start in range(0, rows.num_rows, ROWS) for score in self._score(rows.slice(start, ROWS), seeing)], type=pa.float64())

    def _score(self, rows: pa.Table, scorer: "PictureScorer") -> Iterator[float | None]:
        shown = [self._shown(row) for row in rows_of(rows)]
        scores = iter(scorer.perplexities([sample for sample in shown if sample is not None]))
        return (next(scores) if sample is not None else None for sample in shown)

    def _shown(self, row: Row) -> "Shown | None":
        """What the scorer sees of a row; None where there is not one question and its answer, or a picture cannot be read."""
        from components.curation.picture_scorer import Shown

        if len(row.messages) != 2:
            return None
        question, answer = (message["content"] for message in without_marks(row.messages))
        if self.config.question == "caption":
            question = self._prompts.get(row.language, self._prompts["en"]).text
        try:
            return Shown([picture.image for picture in row.pictures], question, answer)
        except ImageError:
            return None

    def judge(self, rows: pa.Table) -> pa.Table:
        scores, ids = rows["facts"].cast(pa.float64()), rows["id"]
        values = scores.to_numpy()
        groups = pc.call_function("binary_join_element_wise", [rows["source"], rows["language"], "/"]).combine_chunks().dictionary_encode()
        group, scored = groups.indices.to_numpy(), scores.is_valid().to_numpy()
        kept = np.zeros(rows.num_rows, dtype=bool)
        self._thresholds = {}
        for number, name in enumerate(groups.dictionary.to_pylist()):
            members = np.flatnonzero((group == number) & scored)
            lowest = members[keep_lowest(values[members], ids.take(pa.array(members)), self.config.keep_percent)]
            kept[lowest] = True
            if len(lowest):
                self._thresholds[name] = float(values[lowest].max())
        lost = rows.filter(pa.array(~scored)).slice(0, NAMED)
        self._not_scored = [f"{row['source']}/{row['id']}" for row in lost.select(["source", "id"]).to_pylist()]
        reasons = np.where(kept, "", np.where(scored, REASON, NOT_SCORED))
        return verdicts(np.where(kept, KEEP, DROP).tolist(), scores.to_pylist(), reasons.tolist())

    def thresholds(self) -> dict[str, float] | None:
        return self._thresholds

    def record(self) -> dict[str, Any]:
        """The scorer, its revision, the prompts, and the first rows that could not be scored."""
        if isinstance(self.config.scorer, str):
            return {"scorer": {"stage": self.config.scorer}, "not_scored": self._not_scored}
        source, _, revision = self.config.scorer.source.partition("@")
        from components.curation.picture_scorer import weights_of

        digest = weights_of(self.config.scorer, _cache())  # also where all scores were kept from before
        prompts = self._prompt_ids() if self.config.question == "caption" else []
        return {"scorer": {"source": source, "revision": revision or None, "digest": digest, "prompts": prompts}, "not_scored": self._not_scored}

    def _prompt_ids(self) -> list[str]:
        return [prompt.id for prompt in self._prompts.values()]


def _cache() -> Path:
    """Where a model from a bucket is kept."""
    return Path(os.environ.get("STOCKPOT_ANSWERS", ".stockpot/answers")) / "weights"
