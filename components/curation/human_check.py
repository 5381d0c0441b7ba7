"""Filter `human_check`: keeps the rows that somebody has accepted or corrected. Whatever nobody has looked at, as it is now, is dropped."""

from pathlib import Path
from typing import Any

import pyarrow as pa

from components.curation.filter import DROP, FIX, KEEP, RowFilter, verdicts
from components.curation.reviews import Review, read_reviews
from components.curation.row import Row
from components.data.canonical import IMAGE_MARK
from components.errors import DataError
from components.recipe.curation import HumanCheck as Config

KIND = "human_check"
UNREVIEWED = "unreviewed"
REJECTED = "rejected"


class HumanCheck(RowFilter[Config]):
    """A verdict is on one row with one content: a row that has changed since must be looked at again."""

    kind = KIND
    version = "1"
    fact_type = pa.struct([("digest", pa.string()), ("pictures", pa.int64())])

    def looks_at(self, source: str) -> bool:
        return source in self.config.sources

    def fact(self, row: Row) -> dict[str, str | int]:
        return {"digest": row.digest.hex(), "pictures": len(row.images)}

    def judge(self, rows: pa.Table) -> pa.Table:
        given = read_reviews(self.step.file(self.config.verdicts)) if self.config.verdicts else {}
        found = []
        for source, row_id, fact in zip(*(rows[name].to_pylist() for name in ("source", "id", "facts")), strict=True):
            review = given.get((source, row_id, fact["digest"]))
            if review and review.messages and sum(m["content"].count(IMAGE_MARK) for m in review.messages) != fact["pictures"]:
                where = f"{self.config.verdicts}: the row {row_id!r} of {source} has {fact['pictures']} pictures"
                raise DataError(f"{where} and its corrected messages have another number of {IMAGE_MARK} marks: review it again, leaving the marks as they are")
            found.append(_verdict(review))
        return verdicts([a for a, _, _ in found], [None] * len(found), [r for _, r, _ in found], messages=[m for _, _, m in found])


def _verdict(review: Review | None) -> tuple[str, str, list[dict[str, str]] | None]:
    """Action, reason and new messages."""
    match review.verdict if review else None:
        case "accept":
            return KEEP, "", None
        case "fix":
            assert review is not None
            return FIX, "corrected", review.messages
        case "reject":
            return DROP, REJECTED, None
    return DROP, UNREVIEWED, None


def is_unreviewed(row: dict[str, Any]) -> bool:
    """Whether a dropped row only waits for somebody to look at it."""
    last = row["verdicts"][-1]
    return last["filter"] == KIND and last["reason"] == UNREVIEWED


def shards_of(curated: Path) -> Path:
    """Where the curated rows lie that wait for a review."""
    return curated / "dropped"
