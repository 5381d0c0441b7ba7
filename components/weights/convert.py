"""One layout of a POINTS1.5 checkpoint into another, shard by shard, and a self-test of what was written."""

import shutil
from pathlib import Path
from typing import Any

import torch

from components.errors import DataError
from components.models.checkpoint import save_model as _save_own
from components.weights.checkpoint import Checkpoint, open_checkpoint
from components.weights.layouts import Layout, from_b
from components.weights.parity import layer_difference
from components.weights.public_config import write_public
from components.weights.served import check_served
from components.weights.shards import SHARD_BYTES, Entry, cast, write_shards

LAYER_TOLERANCE = 1e-5


def convert(layout: Layout, source: Path, target: Path, dtype: torch.dtype | None = None, shard_bytes: int = SHARD_BYTES) -> dict[str, Any]:
    """Writes the checkpoint `source` (any layout) as `target` in `layout`, in its own dtype unless `dtype` is given, and tests the result.

    Memory: about one shard. The target appears whole or not at all. Returns what was done: layouts, tensors, bytes, and the self-test's
    figures: every tensor led back bit-equal, and the largest difference of one decoder layer computed by both layouts' own mathematics.
    Raises DataError when the target exists, or the source is not a whole POINTS1.5 checkpoint.
    """
    if target.exists():
        raise DataError(f"{target}: exists already: name a new folder")
    checkpoint = open_checkpoint(source)
    entries = {name: cast(entry, dtype) if dtype else entry for name, entry in checkpoint.entries.items()}
    aside = target.with_name(target.name + ".part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        _write(layout, aside, checkpoint, entries, shard_bytes)
        figures = _self_test(aside, entries, layout)
        aside.rename(target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return {"from": checkpoint.layout, "to": layout, "tensors": len(entries), "bytes": sum(e.nbytes for e in entries.values()), **figures}


def _write(layout: Layout, folder: Path, checkpoint: Checkpoint, entries: dict[str, Entry], shard_bytes: int) -> None:
    written = from_b(layout, entries, checkpoint.shape)
    if layout == "stockpot":
        _save_own(checkpoint.config, checkpoint.processor, folder, written)
        return
    dtype = str(next(iter(entries.values())).dtype).removeprefix("torch.")
    write_public(folder, checkpoint.config, checkpoint.processor, layout, dtype)
    if layout == "B":
        check_served({name: entry.shape for name, entry in written.items()}, checkpoint.config)
    write_shards([written[name] for name in sorted(written)], folder, shard_bytes)


def _self_test(folder: Path, entries: dict[str, Entry], layout: Layout) -> dict[str, Any]:
    """Opens what was written and leads it back."""
    again = open_checkpoint(folder)
    kept = {name: entry for name, entry in entries.items() if name in again.entries or layout != "stockpot"}
    for name, entry in kept.items():
        if not torch.equal(again.entries[name].load(), entry.load()):
            raise AssertionError(f"{folder}: {name} does not come back bit-equal from layout {layout}")
    difference = layer_difference(again)
    if difference > LAYER_TOLERANCE:
        raise AssertionError(f"{folder}: one decoder layer differs by {difference} between the layouts")
    return {"tensors_bit_equal": len(kept), "layer_difference": difference}
