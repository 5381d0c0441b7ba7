"""Model folders: config.json, generation_config.json, model.safetensors and the processor's files; deterministic bytes, never pickle."""

import json
from collections.abc import Callable, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import GenerationConfig
from transformers.initialization import no_init_weights

from .config import VLMConfig
from .errors import ModelError
from .json_file import read_json, write_json
from .processor import Processor
from .vlm import VLMForConditionalGeneration

CONFIG, GENERATION_CONFIG, WEIGHTS = "config.json", "generation_config.json", "model.safetensors"
DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
T = TypeVar("T", bound="torch.Tensor | Stored")
TIED = "llm.lm_head.weight"
TIED_TO = "llm.model.embed_tokens.weight"


class Stored(Protocol):
    """A tensor that is not in memory yet."""

    @property
    def shape(self) -> Sequence[int]: ...

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def load(self) -> Callable[[], torch.Tensor]: ...


def save_model(
    model: VLMForConditionalGeneration | VLMConfig, processor: Processor, folder: str | Path, state_dict: Mapping[str, torch.Tensor | Stored] | None = None
) -> None:
    """Writes a model folder.

    `state_dict` (names as in `model.state_dict()`, a tied head may be there or not) replaces the model's own weights: soups and
    engines that gather weights use it, and then a VLMConfig is enough for `model`. Tensors are written in the dtype they have.
    A tensor that is not in memory yet is loaded when it is written, and only then.
    Raises ModelError, before anything is written, when a tensor is missing, unknown, of another shape, or of another dtype than the rest.
    """
    folder = Path(folder)
    config = model if isinstance(model, VLMConfig) else model.config
    if state_dict is None:
        if isinstance(model, VLMConfig):
            raise ModelError("a configuration alone has no weights: give a model or a state_dict.")
        state_dict = model.state_dict()
    weights = _without_tied_head(config, state_dict)
    _check_names("state_dict", {name: list(tensor.shape) for name, tensor in weights.items()}, shapes(config))
    names = {dtype: name for name, dtype in DTYPES.items()}
    dtype = _one_dtype("state_dict", {name: names.get(tensor.dtype, str(tensor.dtype)) for name, tensor in weights.items()})
    _check_pair(folder, config, processor)
    folder.mkdir(parents=True, exist_ok=True)
    processor.save_pretrained(folder)
    write_json(folder / CONFIG, {**config.to_dict(), "architectures": [VLMForConditionalGeneration.__name__], "dtype": str(dtype).removeprefix("torch.")})
    generation = {"do_sample": False, "eos_token_id": processor.stop_token_id, "pad_token_id": processor.pad_token_id}
    write_json(folder / GENERATION_CONFIG, generation)
    _write_weights(folder / WEIGHTS, weights, next(name for name, known in DTYPES.items() if known == dtype))


def load_model(folder: str | Path, dtype: torch.dtype | None = None, attn_implementation: str = "sdpa") -> tuple[VLMForConditionalGeneration, Processor]:
    """The model (evaluation mode, on the CPU, in the stored dtype unless `dtype` is given) and its processor.

    Raises ModelError that names the file, and the tensor where one is wrong. Torch's random state is left as it was.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ModelError(f"{folder}: no such model folder.")
    config = load_config(folder)
    processor = Processor.from_pretrained(folder)
    _check_pair(folder, config, processor)
    with torch.random.fork_rng(devices=[]), no_init_weights():
        model = VLMForConditionalGeneration._from_config(config, attn_implementation=attn_implementation, dtype=torch.float32)
    model.tie_weights()
    _load_weights(model, folder / WEIGHTS, dtype)
    model.generation_config = GenerationConfig(**read_json(folder / GENERATION_CONFIG))
    return model.eval(), processor


def load_config(folder: str | Path) -> VLMConfig:
    """The configuration of a model folder. Raises ModelError that names the file."""
    path = Path(folder) / CONFIG
    values = read_json(path)
    if values.get("model_type") != VLMConfig.model_type:
        raise ModelError(f"{path}: model_type is {values.get('model_type')!r}, expected {VLMConfig.model_type!r}: this is not a Stockpot model.")
    for part in VLMConfig.sub_configs_defaults:
        if not isinstance(values.get(part), dict):
            raise ModelError(f"{path}: not a valid configuration: {part} must be an object.")
    try:
        return VLMConfig.from_dict(values)
    except (TypeError, ValueError, KeyError, StrictDataclassError) as error:
        raise ModelError(f"{path}: not a valid configuration: {' '.join(str(error).split())}") from error


def _load_weights(model: VLMForConditionalGeneration, path: Path, dtype: torch.dtype | None) -> None:
    """Copies tensor by tensor, so that the file's and the model's weights are never both in memory as a whole."""
    targets = _without_tied_head(model.config, model.state_dict())
    try:
        with safe_open(path, framework="pt") as file:
            found = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 (not a dict)
            _check_names(str(path), found, {name: list(tensor.shape) for name, tensor in targets.items()})
            stored = _one_dtype(str(path), {name: file.get_slice(name).get_dtype() for name in found})
            nn.Module.to(model, dtype or stored)
            targets = _without_tied_head(model.config, model.state_dict())
            for name in found:
                targets[name].copy_(file.get_tensor(name))
    except FileNotFoundError as error:
        raise ModelError(f"{path}: the weights are missing.") from error
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: cannot be read: {error}") from error


def _write_weights(path: Path, weights: Mapping[str, torch.Tensor | Stored], dtype: str) -> None:
    """The bytes of safetensors' `save_file`, which wants all tensors in memory; here it is one at a time."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in sorted(weights):
        begin, end = end, end + prod(weights[name].shape) * weights[name].dtype.itemsize
        header[name] = {"dtype": dtype, "shape": list(weights[name].shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in sorted(weights):
            file.write(_loaded(weights[name]).detach().to("cpu").contiguous().reshape(-1).view(torch.uint8).numpy().data)


def _loaded(tensor: torch.Tensor | Stored) -> torch.Tensor:
    return tensor if isinstance(tensor, torch.Tensor) else tensor.load()


def _without_tied_head(config: VLMConfig, state_dict: Mapping[str, T]) -> dict[str, T]:
    """The tensors to store: a head that shares the embedding is left out. Raises ModelError when a tied head differs from the embedding."""
    weights = dict(state_dict)
    if config.llm.tie_word_embeddings and TIED in weights:
        head, embedding = _loaded(weights.pop(TIED)), _loaded(weights[TIED_TO]) if TIED_TO in weights else None
        if embedding is not None and head.data_ptr() != embedding.data_ptr() and not torch.equal(head, embedding):
            raise ModelError(f"state_dict: {TIED} differs from {TIED_TO} though the configuration ties them.")
    return weights


def shapes(config: VLMConfig) -> dict[str, list[int]]:
    """Shapes of all stored tensors, from a model that allocates nothing."""
    with torch.device("meta"), no_init_weights():
        model = VLMForConditionalGeneration._from_config(config)
    names = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    return {name: shape for name, shape in names.items() if not (config.llm.tie_word_embeddings and name == TIED)}


def _check_names(where: str, found: Mapping[str, list[int]], expected: Mapping[str, list[int]]) -> None:
    if missing := sorted(expected.keys() - found.keys()):
        raise ModelError(f"{where}: {len(missing)} tensors are missing, the first is {missing[0]}.")
    if unknown := sorted(found.keys() - expected.keys()):
        raise ModelError(f"{where}: {len(unknown)} tensors are not of this model, the first is {unknown[0]}.")
    for name in sorted(expected):
        if found[name] != expected[name]:
            raise ModelError(f"{where}: {name} has the shape {found[name]}, the configuration asks for {expected[name]}.")


def _one_dtype(where: str, names: Mapping[str, str]) -> torch.dtype:
    """The dtype that all tensors have, from their safetensors names (F32, BF16, ...)."""
    kinds = sorted(set(names.values()))
    if len(kinds) > 1:
        raise ModelError(f"{where}: tensors of several dtypes ({', '.join(kinds)}): store one.")
    if kinds[0] not in DTYPES:
        raise ModelError(f"{where}: tensors of the dtype {kinds[0]}, expected one of {', '.join(DTYPES)}.")
    return DTYPES[kinds[0]]


def _check_pair(where: str | Path, config: VLMConfig, processor: Processor) -> None:
    """Model and processor must speak of the same patches and tokens."""
    vision = config.vision.to_dict()
    pairs = {
        "image_token_id": (config.image_token_id, processor.image_token_id),
        "patch": (_square(vision["patch_size"]), processor.patch),
        "merge": (config.merge, processor.merge),
        "merge of the tower": (vision.get("spatial_merge_size", config.merge), processor.merge),
        "temporal_patch": (vision.get("temporal_patch_size", 1), processor.temporal_patch),
        "size of a view": (_square(vision.get("image_size")), getattr(processor.resolution, "size", None)),
    }
    for name, (model_value, processor_value) in pairs.items():
        if model_value != processor_value:
            raise ModelError(f"{where}: {name} is {model_value} for the model and {processor_value} for the processor: they do not belong together.")
    if len(processor.tokenizer) > config.llm.vocab_size:
        raise ModelError(f"{where}: the tokenizer has {len(processor.tokenizer)} tokens, the model {config.llm.vocab_size}: they do not belong together.")


def _square(size: Any) -> Any:
    """The side of a square that configurations write as a number or as a pair."""
    return size[0] if isinstance(size, list | tuple) else size
