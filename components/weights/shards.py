"""Sharded safetensors as a stream: names and shapes first, a tensor when it is asked for, a shard in memory when it is written."""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from components.errors import DataError

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARD_BYTES = 5_000_000_000
CHUNK = 1 << 24
DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


@dataclass(frozen=True)
class Entry:
    """A tensor that is not in memory yet. `where` names its file for messages."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    load: Callable[[], torch.Tensor]
    where: str

    @property
    def nbytes(self) -> int:
        """Size of the tensor, bytes."""
        return prod(self.shape) * self.dtype.itemsize


def named_shards(folder: Path, prefixes: tuple[str, ...] = ("",)) -> list[str]:
    """Names of the files of a checkpoint that hold tensors with one of the prefixes, sorted; of its index alone, so they need not be there.

    Raises DataError that names the index when it cannot be read.
    """
    return sorted(set(_index(folder, prefixes).values())) if (folder / INDEX).exists() else [WEIGHTS]


def read_shards(folder: Path, prefixes: tuple[str, ...] = ("",)) -> dict[str, Entry]:
    """All tensors of a folder of safetensors whose names have one of the prefixes, by name. Nothing but headers is read.

    Raises DataError that names the file, and the tensor, when the index, a shard or a tensor of the index is missing or cannot be read.
    """
    found: dict[str, Entry] = {}
    for file in named_shards(folder, prefixes):
        found |= {name: entry for name, entry in _header(folder / file).items() if name.startswith(prefixes)}
    if (folder / INDEX).exists():
        for name, file in sorted(_index(folder, prefixes).items()):
            if name not in found:
                raise DataError(f"{folder / file}: {name} is missing, though {INDEX} says that it is there: fetch the shard again")
    return found


def _index(folder: Path, prefixes: tuple[str, ...]) -> dict[str, str]:
    """Tensor -> file, as the index says."""
    index = folder / INDEX
    try:
        named: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        wanted = {name: file for name, file in named.items() if name.startswith(prefixes)}
        odd = sorted(file for file in wanted.values() if Path(file).name != file)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{index}: cannot be read as an index of shards: {error!r}: fetch the file again") from error
    if odd:
        raise DataError(f"{index}: {odd[0]!r} is not the name of a file beside it: fetch the checkpoint again")
    return wanted


def _header(path: Path) -> dict[str, Entry]:
    try:
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            kinds = {name: (tuple(s.get_shape()), s.get_dtype()) for name, s in slices.items()}
    except FileNotFoundError as error:
        raise DataError(f"{path}: the weights are missing: fetch the checkpoint again") from error
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path}: cannot be read as safetensors: {error}: the file is cut off or damaged, fetch it again") from error
    if odd := sorted(f"{name} has the dtype {kind}" for name, (_, kind) in kinds.items() if kind not in DTYPES):
        raise DataError(f"{path}: {odd[0]}, expected one of {', '.join(DTYPES)}")
    return {name: Entry(name, shape, DTYPES[kind], _loader(path, name), str(path)) for name, (shape, kind) in kinds.items()}


def _loader(path: Path, name: str) -> Callable[[], torch.Tensor]:
    def load() -> torch.Tensor:
        with safe_open(path, framework="pt") as file:
            return file.get_tensor(name)

    return load


def renamed(entry: Entry, name: str) -> Entry:
    """The same tensor under another name."""
    return replace(entry, name=name)


def cast(entry: Entry, dtype: torch.dtype) -> Entry:
    """The same tensor in another dtype."""
    return entry if entry.dtype == dtype else replace(entry, dtype=dtype, load=lambda: entry.load().to(dtype))


def write_shards(entries: Iterable[Entry], folder: Path, shard_bytes: int = SHARD_BYTES) -> None:
    """Writes shards of at most `shard_bytes` (a larger tensor has one to itself), and an index where there are several. One shard is in memory at a time."""
    entries = list(entries)
    shards: list[list[Entry]] = [[]]
    room = shard_bytes
    for entry in entries:
        if shards[-1] and entry.nbytes > room:
            shards.append([])
            room = shard_bytes
        shards[-1].append(entry)
        room -= entry.nbytes
    names = [WEIGHTS] if len(shards) == 1 else [f"model-{n:05}-of-{len(shards):05}.safetensors" for n in range(1, len(shards) + 1)]
    for name, shard in zip(names, shards, strict=True):
        save_file({entry.name: entry.load().contiguous() for entry in shard}, folder / name, metadata={"format": "pt"})
        (folder / name).chmod(0o644)  # safetensors writes 0600, and servers run as other users
    if len(shards) > 1:
        weight_map = {entry.name: name for name, shard in zip(names, shards, strict=True) for entry in shard}
        index = {"metadata": {"total_size": sum(entry.nbytes for entry in entries)}, "weight_map": dict(sorted(weight_map.items()))}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def digests_of_shards(folder: Path, prefixes: tuple[str, ...]) -> list[str]:
    """The lines that `sha256sum *.safetensors` prints for the shards that hold tensors with one of the prefixes. Raises DataError for one that is missing."""
    lines = []
    for name in named_shards(folder, prefixes):
        shard = hashlib.sha256()
        try:
            with (folder / name).open("rb") as file:
                while block := file.read(CHUNK):
                    shard.update(block)
        except OSError as error:
            raise DataError(f"{folder / name}: the weights are missing: fetch the checkpoint again") from error
        lines.append(f"{shard.hexdigest()}  {name}")
    return lines
