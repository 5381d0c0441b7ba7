"""Filter `image_validity`: every picture of a row can be decoded whole and is not too large; else the row goes to quarantine."""

import pyarrow as pa

from components.curation.filter import KEEP, QUARANTINE, RowFilter, verdicts
from components.curation.row import Row
from components.data.images import ImageError
from components.recipe.curation import ImageValidity as Config


class ImageValidity(RowFilter[Config]):
    """A picture's size is checked before it is decoded."""

    kind = "image_validity"
    version = "1"
    fact_type = pa.struct([("reason", pa.string()), ("detail", pa.string())])

    def fact(self, row: Row) -> dict[str, str]:
        for picture in row.pictures:
            try:
                picture.decoded(self.config.max_pixels)
            except ImageError as error:
                return {"reason": error.reason, "detail": f"image: {picture.path!r}: {error}"}
        return {"reason": "", "detail": ""}

    def judge(self, rows: pa.Table) -> pa.Table:
        facts = rows["facts"].to_pylist()
        actions = [QUARANTINE if fact["reason"] else KEEP for fact in facts]
        return verdicts(actions, [None] * len(facts), [fact["reason"] for fact in facts], [fact["detail"] for fact in facts])
