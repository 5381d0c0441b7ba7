"""Which format is read by which reader."""

from collections.abc import Callable

from components.data.formats.base64_rows import Base64
from components.data.formats.llava import Llava
from components.data.formats.messages import Messages
from components.data.formats.parquet import Parquet
from components.data.formats.reader import Reader
from components.data.formats.vlmevalkit import VlmEvalKit
from components.data.formats.webdataset import WebDataset
from components.recipe.data import Columns, Format, Source

FORMATS: dict[Format, Callable[[Columns], Reader]] = {
    "llava": lambda _: Llava(),
    "messages": Messages,
    "webdataset": WebDataset,
    "parquet": Parquet,
    "base64": Base64,
    "vlmevalkit": lambda _: VlmEvalKit(),
}


def reader_of(source: Source) -> Reader:
    """The reader of a source's files."""
    return FORMATS[source.format](source.columns or Columns())
