"""config.json and preprocessor_config.json of public POINTS1.5 checkpoints, from and to our own configuration."""

from pathlib import Path
from typing import Any

from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen2Config
from transformers.models.qwen2_vl.configuration_qwen2_vl import Qwen2VLVisionConfig

from components.errors import DataError
from components.models.config import VLMConfig
from components.models.errors import ModelError
from components.models.images import CLIP_MEAN, CLIP_STD
from components.models.json_file import read_json, write_json
from components.models.processor import Processor
from components.models.tokenizer import IM_END, IMAGE_PAD
from components.models.visual_plan import Native
from components.weights.layouts import Layout

MODEL_TYPE, ARCHITECTURE = "pointsv1.5_chat", "POINTSV15ChatModel"
CONFIG, PREPROCESSOR, GENERATION = "config.json", "preprocessor_config.json", "generation_config.json"
REMOTE = {"AutoConfig": "configuration_pointsv15_chat.POINTSV15ChatConfig", "AutoModelForCausalLM": "modeling_pointsv15_chat.POINTSV15ChatModel"}
MIN_PIXELS, MAX_PIXELS = 3136, 12_845_056

SAME = {
    "hidden_size": "hidden_size",
    "num_attention_heads": "num_attention_heads",
    "num_key_value_heads": "num_kv_heads",
    "num_hidden_layers": "num_layers",
    "intermediate_size": "ffn_hidden_size",
    "rms_norm_eps": "layernorm_epsilon",
    "rope_theta": "rotary_emb_base",
    "max_position_embeddings": "max_position_embeddings",
    "vocab_size": "vocab_size",
    "tie_word_embeddings": "tie_word_embeddings",
}
"""Keys of the language model's configuration: Qwen2 (layout B) -> custom_llama (layout A)."""

A_ALONE = {
    "model_type": "custom_llama",
    "use_gqa": True,
    "hidden_act": "swiglu",
    "norm_type": "rms_norm",
    "rotary_pct": 1.0,
    "rotary_compress": 1.0,
    "qkv_proj_bias": True,
    "out_proj_bias": False,
    "mlp_fc1_bias": False,
    "mlp_fc2_bias": False,
}
VISION = ("depth", "embed_dim", "hidden_act", "hidden_size", "in_channels", "mlp_ratio", "num_heads", "patch_size", "spatial_merge_size", "temporal_patch_size")


def read_config(folder: Path, layout: Layout, tokenizer: PreTrainedTokenizerFast | None = None) -> VLMConfig:
    """The configuration of a checkpoint in layout A or B. RMSNorm's epsilon and the rotary base are the checkpoint's, the stop token is not:
    layout A writes token ids that are no token's. Raises DataError that names file and key."""
    path = folder / CONFIG
    values = _object(path)
    try:
        llm, vision = values["llm_config"], values["vision_config"]
        keys = {ours: ours if layout == "B" else theirs for ours, theirs in SAME.items()}
        text = {ours: llm[theirs] for ours, theirs in keys.items() if ours in ("rope_theta", "tie_word_embeddings") and theirs in llm}
        text |= {ours: llm[theirs] for ours, theirs in keys.items() if ours not in ("rope_theta", "tie_word_embeddings")}
        theta = text.pop("rope_theta", None) or llm.get("rope_parameters", {}).get("rope_theta", 1e6)
        image_token = values.get("image_token_id") or (tokenizer.get_vocab()[IMAGE_PAD] if tokenizer else 151655)
        return VLMConfig(
            vision=Qwen2VLVisionConfig(**{key: vision[key] for key in VISION if key in vision}),
            llm=Qwen2Config(**text, rope_parameters={"rope_type": "default", "rope_theta": theta}),
            merge=vision.get("spatial_merge_size", 2),
            image_token_id=image_token,
        )
    except KeyError as error:
        raise DataError(f"{path}: the key {error} is missing: fetch the checkpoint again") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: not the configuration of a POINTS1.5 checkpoint: {' '.join(str(error).split())}: fetch it again") from error


def public_config(config: VLMConfig, layout: Layout, dtype: str, stop: int) -> dict[str, Any]:
    """config.json in layout A or B. `image_token_id` is what SGLang reads; `stop` is the id of `<|im_end|>`."""
    llm = config.llm
    text = {name: getattr(llm, name) for name in SAME if name != "rope_theta"} | {"rope_theta": llm.rope_parameters["rope_theta"]}
    if layout == "A":
        section = {theirs: text[ours] for ours, theirs in SAME.items()} | {"num_hidden_layers": llm.num_hidden_layers} | A_ALONE
    else:
        section = text | {
            "architectures": ["Qwen2ForCausalLM"],
            "model_type": "qwen2",
            "hidden_act": "silu",
            "attention_dropout": 0.0,
            "use_sliding_window": False,
            "eos_token_id": stop,
            "torch_dtype": dtype,
        }
    vision = {key: getattr(config.vision, key) for key in VISION}
    return {
        "architectures": [ARCHITECTURE],
        "auto_map": REMOTE,
        "image_token_id": config.image_token_id,
        "llm_config": section,
        "model_type": MODEL_TYPE,
        "torch_dtype": dtype,
        "vision_config": {**vision, "in_chans": vision["in_channels"], "spatial_patch_size": vision["patch_size"], "model_type": "qwen2_vl"},
    }


def read_processor(folder: Path, config: VLMConfig) -> Processor:
    """The processor of a checkpoint in layout A or B. Raises DataError that names the file."""
    values = _object(folder / PREPROCESSOR)
    size = values.get("size", {})
    bounds = Native(
        values.get("min_pixels") or size.get("shortest_edge") or MIN_PIXELS,
        values.get("max_pixels") or size.get("longest_edge") or MAX_PIXELS,
    )
    try:
        return Processor(
            read_tokenizer(folder),
            patch=config.vision.patch_size,
            merge=config.merge,
            temporal_patch=config.vision.temporal_patch_size,
            resolution=bounds,
            mean=values.get("image_mean", CLIP_MEAN),
            std=values.get("image_std", CLIP_STD),
        )
    except ModelError as error:
        raise DataError(f"{folder}: {error}") from error


def read_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a public folder, with `<|im_end|>` as its stop token. Raises DataError."""
    try:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # tokenizers raises nothing more special
        raise DataError(f"{folder}: the tokenizer cannot be read: {error}: fetch tokenizer.json and tokenizer_config.json again") from error
    tokenizer.eos_token = IM_END
    return tokenizer


def write_public(folder: Path, config: VLMConfig, processor: Processor, layout: Layout, dtype: str) -> None:
    """config.json, generation_config.json, preprocessor_config.json and the tokenizer's files."""
    write_json(folder / CONFIG, public_config(config, layout, dtype, processor.stop_token_id))
    generation = {"do_sample": False, "eos_token_id": processor.stop_token_id, "pad_token_id": processor.pad_token_id}
    write_json(folder / GENERATION, GenerationConfig(**generation).to_diff_dict() | generation)
    resolution = processor.resolution
    assert isinstance(resolution, Native)
    values = {
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": list(processor.mean),
        "image_processor_type": "Qwen2VLImageProcessor",
        "image_std": list(processor.std),
        "max_pixels": resolution.max_pixels,
        "merge_size": processor.merge,
        "min_pixels": resolution.min_pixels,
        "patch_size": processor.patch,
        "processor_class": "Qwen2VLProcessor",
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": {"longest_edge": resolution.max_pixels, "shortest_edge": resolution.min_pixels},
        "temporal_patch_size": processor.temporal_patch,
    }
    write_json(folder / PREPROCESSOR, values)
    processor.save_tokenizer(folder)


def _object(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except ModelError as error:
        raise DataError(str(error)) from error
