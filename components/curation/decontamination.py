"""Decontamination: rows that give away a question of the recipe's evaluation files, before all other filters.

A picture counts alone when its pixels are equal, a picture that only looks alike when the row also asks the same, words when thirteen in a row are shared
(GPT-3, arXiv:2005.14165, appendix C). Short questions and similar pictures are what an honest training set shares with its benchmarks.
"""

from collections import Counter
from typing import Any

import pyarrow as pa

from components.curation.evaluation_set import EvaluationSet, files
from components.curation.filter import KEEP, RowFilter, verdicts
from components.curation.row import Row
from components.recipe.curation import Decontamination as Config
from components.step import Step

REASONS = {"pixels": "evaluation_picture", "picture": "evaluation_question", "text": "evaluation_text"}
"""Rule -> reason."""


class Decontamination(RowFilter[Config]):
    """Looks at all sources together. A row's score is how near it is to the question, 0 to 1."""

    kind = "decontamination"
    version = "2"
    fact_type = pa.struct([("rule", pa.string()), ("benchmark", pa.string()), ("question", pa.int64()), ("score", pa.float64())])

    def __init__(self, config: Config, step: Step):
        """Reads the evaluation files here, once: workers get what they hold. Raises DataError as `EvaluationSet`."""
        super().__init__(config, step)
        self.evaluation = EvaluationSet({step.file(path): name for path, name in files(step.params).items()}, config.words)

    def fact(self, row: Row) -> dict[str, Any] | None:
        match = self.evaluation.match(row, self.config.hash_bits, self.config.picture_percent)
        return match._asdict() if match else None

    def judge(self, rows: pa.Table) -> pa.Table:
        facts = rows["facts"].to_pylist()
        self._found = [(fact["benchmark"], fact["rule"]) for fact in facts if fact]
        return verdicts(
            [self.config.action if fact else KEEP for fact in facts],
            [fact["score"] if fact else None for fact in facts],
            [REASONS[fact["rule"]] if fact else "" for fact in facts],
            [f"{fact['benchmark']}, question {fact['question']}" if fact else "" for fact in facts],
        )

    def report(self) -> dict[str, Any]:
        """`{benchmarks: {name: {questions, pixels, picture, text}}}`: the size of each file, and the rows that give a question of it away, by rule."""
        met = Counter(self._found)
        return {"benchmarks": {name: {"questions": n, **{rule: met[name, rule] for rule in REASONS}} for name, n in self.evaluation.sizes.items()}}
