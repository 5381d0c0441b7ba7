"""Filter `image_size`: rows with a picture that is too small, too large, or too long and thin."""

from typing import Any

import pyarrow as pa

from components.curation.filter import KEEP, RowFilter, verdicts
from components.curation.row import Row
from components.data.images import ImageError
from components.recipe.curation import ImageSize as Config

SMALL, LARGE, LONG = "image_small", "image_large", "image_long"


class ImageSize(RowFilter[Config]):
    """Reads the headers alone. A row's score is its shortest side, pixels."""

    kind = "image_size"
    version = "1"
    fact_type = pa.struct([("shortest", pa.int64()), ("longest", pa.int64()), ("aspect", pa.float64())])

    def looks_at(self, source: str) -> bool:
        return self.config.sources is None or source in self.config.sources

    def fact(self, row: Row) -> dict[str, Any] | None:
        sides = []
        for picture in row.pictures:
            try:
                sides.append(sorted(picture.size))
            except ImageError:
                continue
        if not sides:
            return None
        return {"shortest": min(s for s, _ in sides), "longest": max(e for _, e in sides), "aspect": max(e / s for s, e in sides)}

    def judge(self, rows: pa.Table) -> pa.Table:
        facts = rows["facts"].to_pylist()
        reasons = [self._reason(**fact) if fact else "" for fact in facts]
        scores = [fact["shortest"] if fact else None for fact in facts]
        return verdicts([self.config.action if r else KEEP for r in reasons], scores, reasons)

    def _reason(self, shortest: int, longest: int, aspect: float) -> str:
        if self.config.min_side is not None and shortest < self.config.min_side:
            return SMALL
        if self.config.max_side is not None and longest > self.config.max_side:
            return LARGE
        return LONG if self.config.max_aspect is not None and aspect > self.config.max_aspect else ""
