"""The models-from-code file of a package: MLflow runs it where the model is loaded, beside `stockpot_vlm`, the model's own code.

It must not import anything else of this repository. See package.py, which puts the package together.
"""

import base64
import binascii
import os
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

MAX_PIXELS = 50_000_000
"""Larger pictures are refused before they are decoded, pixels; as in evaluation."""
MAX_NEW_TOKENS = 32
"""Longest answer unless `params={"max_new_tokens": ...}` says otherwise, tokens."""
BATCH = 16
"""Questions answered together."""
SERVED = "__pyfunc_model_path__"
"""Set by MLflow in the environment of its scoring server, where a path from outside must not be read."""


class VisionLanguageModel(PythonModel):
    """Answers questions about pictures by greedy decoding."""

    def load_context(self, context: Any) -> None:
        from stockpot_vlm.checkpoint import load_model  # pyright: ignore[reportMissingImports]

        self.model, self.processor = load_model(context.artifacts["model"])

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None):
        """A list with one answer for each row of `question` and, optionally, `image`. Raises ValueError that names the row."""
        from stockpot_vlm.generation import answer  # pyright: ignore[reportMissingImports]

        rows = model_input.to_dict("records")
        questions = [_question(number, row) for number, row in enumerate(rows)]
        images = [_picture(number, row.get("image")) for number, row in enumerate(rows)]
        longest = int((params or {}).get("max_new_tokens", MAX_NEW_TOKENS))
        return answer(self.model, self.processor, images, questions, max_new_tokens=longest, batch=BATCH)


def _question(number: int, row: dict[str, Any]) -> str:
    text = row.get("question")
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"row {number}: question: expected text, got {text!r}")
    return text


def _picture(number: int, value: Any) -> Any:
    """The upright RGB picture, or None when the row has none."""
    from stockpot_vlm.decode import decode  # pyright: ignore[reportMissingImports]

    if value == "" or (not isinstance(value, bytes | str) and bool(pd.isna(value))):  # pyright: ignore[reportGeneralTypeIssues]
        return None
    try:
        return decode(_bytes(value), MAX_PIXELS)
    except (ValueError, OSError) as error:
        raise ValueError(f"row {number}: image: {error}") from error


def _bytes(value: Any) -> bytes:
    """The encoded picture from bytes, a path, base64 text or a `data:` URL. Paths are not read in a scoring server."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if not isinstance(value, str | os.PathLike):
        raise ValueError(f"expected bytes, base64 text or a path, got {type(value).__name__}")
    text = os.fspath(value)
    may_read = SERVED not in os.environ
    if may_read and os.path.isfile(text):  # noqa: PTH113  Path.is_file raises for text that is too long for a path
        return Path(text).read_bytes()
    try:
        return base64.b64decode(text.partition(",")[2] if text.startswith("data:") else text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"{text[:80]!r} is {'no file and ' if may_read else ''}no base64 text of a picture") from error


set_model(VisionLanguageModel())
