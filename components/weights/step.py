"""Step `weights`: public weights as a model folder that training starts from. A part that the recipe does not name starts at random."""

import json
import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from components.errors import DataError
from components.models.build import build_processor, vlm_config
from components.models.checkpoint import save_model, shapes
from components.models.config import VLMConfig
from components.models.errors import ModelError
from components.models.json_file import read_json
from components.models.tokenizer import IMAGE_PAD
from components.models.vlm import VLMForConditionalGeneration
from components.recipe.model import Model
from components.step import Step
from components.weights.checkpoint import Checkpoint, expectation, open_checkpoint
from components.weights.layouts import check, from_b
from components.weights.public_config import read_tokenizer
from components.weights.shards import Entry, cast, read_shards, renamed
from components.weights.sources import checked_digest, fetch

logger = logging.getLogger(__name__)

PREFIXES = {"whole": ("",), "vision": ("visual.", "model.visual."), "llm": ("model.", "lm_head.")}
"""Tensors of a part in its public checkpoint."""
NAMES = {"visual.": "vision.", "model.visual.": "vision.", "model.language_model.": "llm.model.", "model.": "llm.model.", "lm_head.": "llm.lm_head."}
"""Public -> ours. transformers 4 and 5 write different names."""
KEYS = {
    "vision": {"depth": "depth", "embed_dim": "width", "num_heads": "heads", "patch_size": "patch", "temporal_patch_size": "temporal_patch"},
    "llm": {"hidden_size": "hidden", "num_hidden_layers": "layers", "num_attention_heads": "heads", "num_key_value_heads": "kv_heads"}
    | {"intermediate_size": "ffn", "vocab_size": "vocab"},
}
TRAINED_WITH = {
    "vision": {"mlp_ratio": "mlp_ratio"},
    "llm": {"rms_norm_eps": "rms_eps", "rope_parameters": "rope_theta", "tie_word_embeddings": "tie_embeddings"},
}
"""The same, for what a whole checkpoint must have as well."""
"""Key of a public configuration -> key of the recipe's section. They are compared, because equal shapes do not mean equal heads."""


def run(step: Step) -> None:
    """Writes the model folder (float32), a tensor in memory at a time, and summary.json. Raises DataError for a checkpoint that is not what the recipe says."""
    model = step.config("model", Model)
    assert model.weights is not None
    parts = model.weights.parts
    with tempfile.TemporaryDirectory(dir=".") as cache:
        folders = {part: fetch(public.source, Path(cache), PREFIXES[part]) for part, public in parts.items()}
        digests = {part: checked_digest(public, folders[part], PREFIXES[part]) for part, public in parts.items()}
        tokenizer = read_tokenizer(folders.get("whole") or folders["llm"])
        config = vlm_config(model, model.llm.vocab, tokenizer.get_vocab().get(IMAGE_PAD, -1))
        found = {part: _whole(folder, config) if part == "whole" else _part(part, folder, model, config) for part, folder in folders.items()}
        weights = {name: cast(entry, torch.float32) for entries in found.values() for name, entry in entries.items()}
        missing = shapes(config).keys() - weights.keys()
        drawn = {name: tensor for name, tensor in _drawn(model, tokenizer, step.seed).items() if name in missing} if missing else {}
        try:
            save_model(config, build_processor(model, tokenizer), step.data, weights | drawn)
        except ModelError as error:
            raise DataError(f"model.weights: {error}") from error
    summary = {part: {"source": parts[part].source, "digest": digests[part], "tensors": len(found[part])} for part in parts}
    step.side("summary.json").write_text(json.dumps({"parts": summary, "drawn_tensors": len(drawn)}, indent=2) + "\n", encoding="utf-8")


def _whole(folder: Path, config: VLMConfig) -> dict[str, Entry]:
    """All tensors of a POINTS1.5 checkpoint under our names."""
    checkpoint: Checkpoint = open_checkpoint(folder)
    for part in ("vision", "llm"):
        theirs, ours = getattr(checkpoint.config, part), getattr(config, part)
        for key, name in (KEYS[part] | TRAINED_WITH[part]).items():
            _same(folder, key, getattr(theirs, key), f"{part}.{name}", getattr(ours, key))
    return _checked(folder, from_b("stockpot", checkpoint.entries, checkpoint.shape), shapes(config))


def _part(part: str, folder: Path, model: Model, config: VLMConfig) -> dict[str, Entry]:
    """The tensors of a tower or of a language model under our names."""
    values = _configuration(folder, part)
    section: Any = getattr(model, part)
    for key, name in KEYS[part].items():
        if key in values:
            _same(folder, key, values[key], f"{part}.{name}", getattr(section, name))
    if part == "vision" and values.get("spatial_merge_size", model.connector.merge) != model.connector.merge:
        raise DataError(f"{folder}/config.json: spatial_merge_size is {values['spatial_merge_size']}, model.connector.merge {model.connector.merge}")
    theta = values.get("rope_theta") or values.get("rope_parameters", {}).get("rope_theta")
    if part == "llm" and theta is not None:
        _same(folder, "rope_theta", theta, "llm.rope_theta", section.rope_theta)
    if part == "llm" and values.get("rms_norm_eps", section.rms_eps) != section.rms_eps:
        logger.warning("%s: trained with rms_norm_eps %s, the recipe goes on with %s", folder, values["rms_norm_eps"], section.rms_eps)
    stored = read_shards(folder, PREFIXES[part])
    found = {ours: renamed(entry, ours) for name, entry in stored.items() if (ours := _own(name)).startswith(f"{part}.") and ".merger." not in ours}
    if config.llm.tie_word_embeddings:
        found.pop("llm.lm_head.weight", None)
    return _checked(folder, found, {name: shape for name, shape in shapes(config).items() if name.startswith(f"{part}.")})


def _configuration(folder: Path, part: str) -> Mapping[str, Any]:
    try:
        values = read_json(folder / "config.json")
    except ModelError as error:
        raise DataError(str(error)) from error
    nested = values.get("vision_config" if part == "vision" else "text_config", {})
    return {**values, **nested} if isinstance(nested, dict) else values


def _same(folder: Path, key: str, theirs: Any, name: str, ours: Any) -> None:
    if theirs != ours:
        raise DataError(f"{folder}/config.json: {key} is {theirs}, the recipe's model.{name} {ours}: give the checkpoint's own sizes")


def _checked(folder: Path, found: Mapping[str, Entry], asked: Mapping[str, list[int]]) -> dict[str, Entry]:
    check(str(folder), found, {name: expectation(name, shape) for name, shape in asked.items()})
    return dict(found)


def _own(name: str) -> str:
    for public, ours in sorted(NAMES.items(), key=lambda pair: -len(pair[0])):
        if name.startswith(public):
            return ours + name.removeprefix(public)
    return name


def _drawn(model: Model, tokenizer: PreTrainedTokenizerFast, seed: int) -> dict[str, torch.Tensor]:
    """Random tower and connector: those of a model with a small language model, which draws them as a whole one would."""
    small = model.model_copy(update={"llm": model.llm.model_copy(update={"layers": 1, "vocab": 264})})
    config = vlm_config(small, 264, 0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        drawn = VLMForConditionalGeneration._from_config(config, dtype=torch.float32).state_dict()
    return {name: tensor for name, tensor in drawn.items() if not name.startswith("llm.")}
