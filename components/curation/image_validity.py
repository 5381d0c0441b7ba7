"""Filter `image_validity`: every picture of a row can be decoded whole and is not too large; else the row goes to quarantine."""

import pyarrow as pa

from components.curation.filter import KEEP, QUARANTINE, VERDICTS, Filter
from components.data.images import ImageError, decode
from components.recipe.curation import ImageValidity as Config

FACTS = pa.struct([("reason", pa.string()), ("detail", pa.string())])


class ImageValidity(Filter[Config]):
    """Decodes each picture once; its size is checked before."""

    kind = "image_validity"
    version = "1"
    columns = ("images",)

    def facts(self, rows: pa.Table) -> pa.Array:
        return pa.array([self._defect(images) for images in _lists(rows["images"])], type=FACTS)

    def _defect(self, images: pa.ListScalar) -> dict[str, str]:
        for image in images.as_py():
            try:
                decode(image["bytes"], self.config.max_pixels)
            except ImageError as error:
                return {"reason": error.reason, "detail": f"image: {image['path']!r}: {error}"}
        return {"reason": "", "detail": ""}

    def judge(self, rows: pa.Table) -> pa.Table:
        facts = rows["facts"].to_pylist()
        actions = [QUARANTINE if fact["reason"] else KEEP for fact in facts]
        columns = [actions, [None] * len(facts), [fact["reason"] for fact in facts], [fact["detail"] for fact in facts]]
        return pa.table([pa.array(c, type=f.type) for c, f in zip(columns, VERDICTS, strict=True)], schema=VERDICTS)


def _lists(column: pa.ChunkedArray) -> list[pa.ListScalar]:
    """The rows of a list column without copying their pictures yet."""
    return [row for chunk in column.chunks for row in chunk]
