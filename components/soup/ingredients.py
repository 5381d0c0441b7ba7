"""What goes into a soup: model directories that must be alike in everything but the values of their weights."""

import json
import struct
from contextlib import AbstractContextManager
from io import BufferedReader
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from components.errors import DataError

WEIGHTS = "model.safetensors"
RETRAIN = "train the candidates again from one start, with one model section"


class Ingredient(AbstractContextManager["Ingredient"]):
    """The open weights of one model directory: the header of its safetensors file, and reads of single tensors' bytes.

    Format (safetensors README): 8 bytes N, little-endian; N bytes of JSON {key: {dtype, shape, data_offsets}}; the tensors' bytes.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / WEIGHTS
        try:
            with safe_open(self.path, framework="pt"):  # the library's own checks: header, offsets, length of the file
                pass
            self.file: BufferedReader = self.path.open("rb")
        except SafetensorError as error:
            raise DataError(f"{self.path}: not a whole safetensors file ({error}): run the step that writes it again") from error
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read ({error.strerror or 'no such file'}): run the step that writes it again") from error
        (length,) = struct.unpack("<Q", self.file.read(8))
        self.header = self.file.read(length)
        self.tensors: dict[str, dict[str, Any]] = {k: v for k, v in json.loads(self.header).items() if k != "__metadata__"}
        self.start = 8 + length

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def in_file_order(self) -> list[str]:
        """Keys by the place of their bytes."""
        return sorted(self.tensors, key=lambda k: (self.tensors[k]["data_offsets"], k))

    def read_into(self, key: str, offset: int, buffer: memoryview) -> None:
        """Fills `buffer` with the bytes of tensor `key` from its byte `offset` on."""
        self.file.seek(self.start + self.tensors[key]["data_offsets"][0] + offset)
        if self.file.readinto(buffer) != len(buffer):
            raise DataError(f"{self.path}: {key}: the file ends early: run the step that writes it again")


def check_tensors(ingredients: list[Ingredient]) -> None:
    """Raises DataError that names file and key where an ingredient's keys, shapes or dtypes differ from the first one's."""
    first = ingredients[0]
    for other in ingredients[1:]:
        for key in sorted(first.tensors.keys() ^ other.tensors.keys()):
            missing, having = (other, first) if key in first.tensors else (first, other)
            raise DataError(f"{missing.path}: {key}: no such tensor, but {having.path} has it: {RETRAIN}")
        for key, tensor in first.tensors.items():
            for what in ("shape", "dtype"):
                if tensor[what] != other.tensors[key][what]:
                    raise DataError(f"{other.path}: {key}: {what} {other.tensors[key][what]}, but {tensor[what]} in {first.path}: {RETRAIN}")


def check_files(folders: list[Path]) -> list[str]:
    """Names of the files beside the weights, sorted. Raises DataError that names file and key where they differ in content.

    JSON files (config, tokenizer, processor) are compared by value, all others by their bytes.
    """
    first, *others = folders
    names = _names(first)
    for folder in others:
        for name in sorted(set(names) ^ set(_names(folder))):
            raise DataError(f"{(folder if name in names else first) / name}: not there, but in another candidate: {RETRAIN}")
        for name in names:
            if (folder / name).read_bytes() != (first / name).read_bytes():
                _check_content(first / name, folder / name)
    return names


def _names(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p.name != WEIGHTS)


def _check_content(first: Path, other: Path) -> None:
    key = ""
    if first.suffix == ".json":
        a, b = _json(first), _json(other)
        if a == b:
            return
        if isinstance(a, dict) and isinstance(b, dict):
            key = f" {min(k for k in a.keys() | b.keys() if a.get(k) != b.get(k) or (k in a) != (k in b))}:"
    raise DataError(f"{other}:{key} differs from {first}: a soup needs one config, tokenizer and processor; {RETRAIN}")


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error}): run the step that writes it again") from error
