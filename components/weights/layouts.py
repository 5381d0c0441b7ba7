"""The layouts in which POINTS1.5's weights are public, as lists of tensors. Every layout is read into, and written from, the names of layout B.

A: `WePOINTS/POINTS-1-5-Qwen-2-5-7B-Chat`, keys and values fused head by head, up and gate fused. B: Qwen2's names below `llm.`, which SGLang serves
(POINTS-Reader and later). stockpot: the names of our own model folders.
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import torch

from components.errors import DataError
from components.weights.shards import Entry, renamed

Layout = Literal["A", "B", "stockpot"]
DEAD = "vision_encoder.merger."
"""The tower's own merger: public checkpoints hold it, nothing uses it. It is carried along as it is."""

PREFIXES = {"vision.": "vision_encoder.", "connector.": "vision_projector."}
"""Ours -> public."""


class Shape(NamedTuple):
    """What names and shapes of the language model depend on."""

    layers: int
    kv_heads: int
    head: int
    tied: bool


class Fused(NamedTuple):
    """One tensor of layout A and the tensors of layout B that are in it."""

    a: str
    b: tuple[str, ...]


def fused(shape: Shape) -> list[Fused]:
    """Every tensor of the language model in both layouts."""
    found = [
        Fused("llm.lm.embed_in.weight", ("llm.model.embed_tokens.weight",)),
        Fused("llm.lm.final_layer_norm.weight", ("llm.model.norm.weight",)),
    ]
    if not shape.tied:
        found.append(Fused("llm.embed_out.weight", ("llm.lm_head.weight",)))
    for i in range(shape.layers):
        a, b = f"llm.lm.layers.{i}", f"llm.model.layers.{i}"
        for norm in ("input_layernorm", "post_attention_layernorm"):
            found.append(Fused(f"{a}.{norm}.weight", (f"{b}.{norm}.weight",)))
        for part in ("weight", "bias"):
            found.append(Fused(f"{a}.attention.query_dense.{part}", (f"{b}.self_attn.q_proj.{part}",)))
            found.append(Fused(f"{a}.attention.key_value_dense.{part}", (f"{b}.self_attn.k_proj.{part}", f"{b}.self_attn.v_proj.{part}")))
        found.append(Fused(f"{a}.attention.dense.weight", (f"{b}.self_attn.o_proj.weight",)))
        found.append(Fused(f"{a}.mlp.dense_h_to_4h.weight", (f"{b}.mlp.up_proj.weight", f"{b}.mlp.gate_proj.weight")))
        found.append(Fused(f"{a}.mlp.dense_4h_to_h.weight", (f"{b}.mlp.down_proj.weight",)))
    return found


def detect(names: Mapping[str, Any] | set[str]) -> Layout:
    """The layout that a set of tensor names has. Raises DataError for none of them."""
    if any(name.startswith("llm.lm.") for name in names):
        return "A"
    if any(name.startswith("vision_encoder.") for name in names):
        return "B"
    if any(name.startswith("connector.") for name in names):
        return "stockpot"
    raise DataError(f"tensors such as {min(names, default='none')!r} are in none of the layouts A, B and stockpot: this is no POINTS1.5 checkpoint")


def to_b(layout: Layout, entries: Mapping[str, Entry], shape: Shape) -> dict[str, Entry]:
    """The tensors of a complete checkpoint (see `check`) under the names of layout B."""
    if layout == "B":
        return dict(entries)
    if layout == "stockpot":
        return {_public(name): renamed(entry, _public(name)) for name, entry in entries.items()}
    found = {name: entry for name, entry in entries.items() if not name.startswith("llm.")}
    for a, b in fused(shape):
        found |= {name: _part(entries[a], name, n, len(b), shape) for n, name in enumerate(b)}
    return found


def from_b(layout: Layout, entries: Mapping[str, Entry], shape: Shape) -> dict[str, Entry]:
    """The tensors of layout B under the names of another. Our own folders do not hold the dead merger."""
    if layout == "B":
        return dict(entries)
    if layout == "stockpot":
        return {_own(name): renamed(entry, _own(name)) for name, entry in entries.items() if not name.startswith(DEAD)}
    found = {name: entry for name, entry in entries.items() if not name.startswith("llm.")}
    return found | {a: _join([entries[name] for name in b], a, shape) for a, b in fused(shape)}


def check(where: str, entries: Mapping[str, Entry], expected: Mapping[str, Entry]) -> None:
    """Raises DataError that names tensor and file when one is missing, unknown or of another shape. The dead merger is there whole, or not at all."""
    dead = {name for name in expected if name.startswith(DEAD)}
    needed = expected.keys() - (set() if entries.keys() & dead else dead)
    if missing := sorted(needed - entries.keys()):
        raise DataError(f"{where}: {len(missing)} tensors are missing, the first is {missing[0]}: fetch the checkpoint again, or correct its config.json")
    if unknown := sorted(entries.keys() - expected.keys()):
        raise DataError(f"{entries[unknown[0]].where}: {len(unknown)} tensors are not of this model, the first is {unknown[0]}: correct config.json")
    for name in sorted(needed):
        if entries[name].shape != expected[name].shape:
            found, asked = list(entries[name].shape), list(expected[name].shape)
            raise DataError(f"{entries[name].where}: {name} has the shape {found}, the configuration asks for {asked}: correct config.json")


def _part(entry: Entry, name: str, n: int, parts: int, shape: Shape) -> Entry:
    """Tensor `n` of the `parts` that are fused into one. Keys and values alternate head by head, up and gate are halves."""
    if parts == 1:
        return renamed(entry, name)
    rows = entry.shape[0] // 2
    heads = shape.kv_heads if "key_value_dense" in entry.name else 1

    def load() -> torch.Tensor:
        return entry.load().view(heads, 2, -1, *entry.shape[1:])[:, n].reshape(rows, *entry.shape[1:]).contiguous()

    return Entry(name, (rows, *entry.shape[1:]), entry.dtype, load, entry.where)


def _join(entries: list[Entry], name: str, shape: Shape) -> Entry:
    """The inverse of `_part`."""
    if len(entries) == 1:
        return renamed(entries[0], name)
    first = entries[0]
    heads = shape.kv_heads if "key_value_dense" in name else 1

    def load() -> torch.Tensor:
        parts = [entry.load().view(heads, -1, *first.shape[1:]) for entry in entries]
        return torch.stack(parts, 1).flatten(0, 2)

    return Entry(name, (2 * first.shape[0], *first.shape[1:]), first.dtype, load, first.where)


def _public(name: str) -> str:
    for ours, public in PREFIXES.items():
        if name.startswith(ours):
            return public + name.removeprefix(ours)
    return name


def _own(name: str) -> str:
    for ours, public in PREFIXES.items():
        if name.startswith(public):
            return ours + name.removeprefix(public)
    return name
