"""Filter `text_length`: rows with an answer that is too short or too long."""

import pyarrow as pa

from components.curation.filter import KEEP, RowFilter, verdicts
from components.curation.row import Row
from components.curation.words import words
from components.recipe.curation import TextLength as Config

SHORT, LONG = "answer_short", "answer_long"


class TextLength(RowFilter[Config]):
    """White space around an answer does not count. A row's score is the length that decided, else that of its longest answer."""

    kind = "text_length"
    version = "1"
    fact_type = pa.struct([("shortest", pa.int64()), ("longest", pa.int64())])
    sees_pictures = False

    def looks_at(self, source: str) -> bool:
        return self.config.sources is None or source in self.config.sources

    def fact(self, row: Row) -> dict[str, int]:
        answers = [m["content"].strip() for m in row.messages if m["role"] == "assistant"]
        lengths = [len(answer if self.config.unit == "characters" else words(answer)) for answer in answers] or [0]
        return {"shortest": min(lengths), "longest": max(lengths)}

    def judge(self, rows: pa.Table) -> pa.Table:
        facts = rows["facts"].to_pylist()
        reasons = [self._reason(**fact) for fact in facts]
        scores = [fact["shortest" if reason == SHORT else "longest"] for fact, reason in zip(facts, reasons, strict=True)]
        return verdicts([self.config.action if r else KEEP for r in reasons], scores, reasons)

    def _reason(self, shortest: int, longest: int) -> str:
        if self.config.min is not None and shortest < self.config.min:
            return SHORT
        return LONG if self.config.max is not None and longest > self.config.max else ""
