"""A POINTS1.5 checkpoint in any layout, opened: configuration, processor, and its tensors under the names of layout B, none of them in memory."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers.initialization import no_init_weights

from components.errors import DataError
from components.models.checkpoint import load_config, shapes
from components.models.config import VLMConfig
from components.models.errors import ModelError
from components.models.points import PointsForConditionalGeneration, check_points
from components.models.processor import Processor
from components.weights.layouts import DEAD, Layout, Shape, check, detect, from_b, to_b
from components.weights.public_config import read_config, read_processor, read_tokenizer
from components.weights.shards import Entry, read_shards


@dataclass(frozen=True)
class Checkpoint:
    """`entries`: the tensors under the names of layout B, complete and of the right shapes."""

    folder: Path
    layout: Layout
    config: VLMConfig
    processor: Processor
    entries: dict[str, Entry]
    shape: Shape


def open_checkpoint(folder: Path) -> Checkpoint:
    """Reads configuration and headers. Raises DataError that names the file, and the tensor where one is missing, unknown or of another shape."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder: give a checkpoint's folder, a hub name such as org/name, or s3://bucket/prefix")
    entries = read_shards(folder)
    layout = detect(set(entries))
    try:
        if layout == "stockpot":
            config, processor = load_config(folder), Processor.from_pretrained(folder)
            check_points(config)
        else:
            config = read_config(folder, layout, read_tokenizer(folder))
            processor = read_processor(folder, config)
    except ModelError as error:
        raise DataError(f"{folder}: {error}") from error
    shape = language_shape(config)
    check(str(folder), entries, from_b(layout, expected(config), shape))
    return Checkpoint(folder, layout, config, processor, to_b(layout, entries, shape), shape)


def language_shape(config: VLMConfig) -> Shape:
    """What the fused layout depends on."""
    llm = config.llm
    return Shape(llm.num_hidden_layers, llm.num_key_value_heads, llm.hidden_size // llm.num_attention_heads, llm.tie_word_embeddings)


def expected(config: VLMConfig) -> dict[str, Entry]:
    """Names and shapes of layout B, dead merger included, from the configuration alone; nothing can be loaded from these entries."""
    width, joined = config.vision.embed_dim, config.vision.embed_dim * config.merge**2
    dead = {"ln_q.weight": [width], "ln_q.bias": [width], "mlp.0.weight": [joined, joined], "mlp.0.bias": [joined]}
    dead |= {"mlp.2.weight": [config.vision.hidden_size, joined], "mlp.2.bias": [config.vision.hidden_size]}
    ours = {name: expectation(name, shape) for name, shape in shapes(config).items()}
    return to_b("stockpot", ours, language_shape(config)) | {DEAD + name: expectation(DEAD + name, shape) for name, shape in dead.items()}


def load_points(folder: Path, dtype: torch.dtype | None = None, attn_implementation: str = "sdpa") -> tuple[PointsForConditionalGeneration, Processor]:
    """The trainable model of a checkpoint in any layout (on the CPU, in the stored dtype unless `dtype` is given), and its processor. Raises DataError."""
    checkpoint = open_checkpoint(folder)
    stored = next(iter(checkpoint.entries.values())).dtype
    with torch.random.fork_rng(devices=[]), no_init_weights():
        model = PointsForConditionalGeneration._from_config(checkpoint.config, attn_implementation=attn_implementation, dtype=torch.float32)
    model.tie_weights()
    nn.Module.to(model, dtype or stored)
    weights = model.state_dict()
    for name, entry in from_b("stockpot", checkpoint.entries, checkpoint.shape).items():
        weights[name].copy_(entry.load())
    return model.eval(), checkpoint.processor


def expectation(name: str, shape: list[int]) -> Entry:
    """What a tensor must be like: it has a name and a shape, and cannot be loaded."""

    def load() -> torch.Tensor:
        raise AssertionError(f"{name} is an expectation, not a tensor")

    return Entry(name, tuple(shape), torch.bfloat16, load, "the configuration")
