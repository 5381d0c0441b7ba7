"""Filter `perplexity`: keeps the rows whose answers a language model finds most likely (POINTS1.0 section 3.2, POINTS1.5 section 3).

Each source and language is ranked by itself. Exactly `rows * keep_percent // 100` rows are kept, in whole numbers.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import torch

from components.curation.filter import DROP, KEEP, ModelFilter, verdicts
from components.curation.scorer import Scorer
from components.profile import step_profile
from components.recipe.curation import Perplexity as Config
from components.step import Step

REASON = "high_perplexity"


def keep_lowest(scores: Sequence[float], ids: Sequence[str], percent: int) -> list[int]:
    """Indices of the `len(scores) * percent // 100` lowest scores, lowest first; equal scores in the order of their ids."""
    order = sorted(range(len(scores)), key=lambda i: (scores[i], ids[i], i))
    return order[: len(scores) * percent // 100]


class Perplexity(ModelFilter[Config]):
    """Scores the text alone: the model never sees the pictures."""

    kind = "perplexity"
    version = "text-1"
    columns = ("messages",)

    def __init__(self, config: Config, step: Step):
        super().__init__(config, step)
        self._scorer: Scorer | None = None
        self._thresholds: dict[str, float] = {}

    def looks_at(self, source: str) -> bool:
        return source in self.config.sources

    def facts(self, rows: pa.Table) -> pa.Array:
        if self._scorer is None:
            torch.set_num_threads(step_profile().threads)
            self._scorer = Scorer(self.step.input(self.config.scorer))
        return pa.array(self._scorer.perplexities(rows["messages"].to_pylist()), type=pa.float64())

    def judge(self, rows: pa.Table) -> pa.Table:
        scores, ids = rows["facts"].to_numpy(), rows["id"].to_pylist()
        groups: dict[str, list[int]] = {}
        for i, (source, language) in enumerate(zip(rows["source"].to_pylist(), rows["language"].to_pylist(), strict=True)):
            groups.setdefault(f"{source}/{language}", []).append(i)
        kept = np.zeros(rows.num_rows, dtype=bool)
        self._thresholds = {}
        for group, members in groups.items():
            lowest = keep_lowest([scores[i] for i in members], [ids[i] for i in members], self.config.keep_percent)
            kept[[members[i] for i in lowest]] = True
            if lowest:
                self._thresholds[group] = float(scores[members[lowest[-1]]])
        return verdicts([KEEP if k else DROP for k in kept], scores, ["" if k else REASON for k in kept])

    def thresholds(self) -> dict[str, float] | None:
        return self._thresholds
