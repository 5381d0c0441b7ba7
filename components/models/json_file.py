"""Small JSON files of a model folder, with deterministic bytes."""

import json
from pathlib import Path
from typing import Any

from .errors import ModelError


def read_json(path: Path) -> dict[str, Any]:
    """The object in the file. Raises ModelError that names the file."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise ModelError(f"{path}: expected a JSON object.")
    return values


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Sorted keys, two spaces, a newline at the end."""
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")
