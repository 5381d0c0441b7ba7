"""A new model with random weights, from the recipe's `model` section."""

from typing import Any

import torch
from transformers import CLIPVisionConfig, InternVLVisionConfig, LlamaConfig, PreTrainedTokenizerFast, Qwen2Config
from transformers.configuration_utils import PreTrainedConfig
from transformers.models.qwen2_vl.configuration_qwen2_vl import Qwen2VLVisionConfig

from components.recipe.model import Model

from .config import VLMConfig
from .errors import ModelError
from .images import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD
from .processor import Processor
from .tokenizer import IMAGE_PAD
from .visual_plan import Fixed, Native, Resolution, Tiles
from .vlm import VLMForConditionalGeneration

LLM_CONFIGS: dict[str, type[Qwen2Config | LlamaConfig]] = {"qwen2": Qwen2Config, "llama": LlamaConfig}


def vlm_config(config: Model, vocab_size: int, image_token_id: int) -> VLMConfig:
    """The model's configuration. Raises ModelError for an MLP ratio that the stock tower cannot have."""
    llm = config.llm
    text = LLM_CONFIGS[llm.backbone](
        vocab_size=vocab_size,
        hidden_size=llm.hidden,
        intermediate_size=llm.ffn,
        num_hidden_layers=llm.layers,
        num_attention_heads=llm.heads,
        num_key_value_heads=llm.kv_heads,
        max_position_embeddings=config.context,
        rms_norm_eps=llm.rms_eps,
        rope_parameters={"rope_type": "default", "rope_theta": llm.rope_theta},
        tie_word_embeddings=llm.tie_embeddings,
        initializer_range=llm.init_std,
    )
    return VLMConfig(
        vision=_vision(config),
        llm=text,
        select_layer=config.vision.select_layer,
        pool=config.connector.pool,
        merge=config.connector.merge,
        image_token_id=image_token_id,
    )


def _vision(config: Model) -> PreTrainedConfig:
    vision = config.vision
    if vision.encoder == "qwen2_vl_vit":
        if vision.mlp_ratio != int(vision.mlp_ratio):
            raise ModelError(f"model.vision.mlp_ratio is {vision.mlp_ratio}: the Qwen2-VL tower takes whole numbers.")
        return Qwen2VLVisionConfig(
            depth=vision.depth,
            embed_dim=vision.width,
            hidden_size=config.llm.hidden,
            num_heads=vision.heads,
            mlp_ratio=int(vision.mlp_ratio),
            patch_size=vision.patch,
            spatial_merge_size=config.connector.merge,
            temporal_patch_size=vision.temporal_patch,
            initializer_range=vision.init_std,
        )
    shape: dict[str, Any] = {
        "hidden_size": vision.width,
        "intermediate_size": int(vision.width * vision.mlp_ratio),
        "num_hidden_layers": vision.depth,
        "num_attention_heads": vision.heads,
        "patch_size": vision.patch,
        "image_size": config.resolution.size,
        "initializer_range": vision.init_std,
    }
    if vision.encoder == "clip_vit":
        return CLIPVisionConfig(**shape)
    six = vision.encoder == "intern_vit_6b"
    return InternVLVisionConfig(**shape, norm_type="rms_norm" if six else "layer_norm", use_qk_norm=six, attention_bias=not six)


def build_model(config: Model, tokenizer: PreTrainedTokenizerFast, seed: int, attn_implementation: str = "sdpa") -> VLMForConditionalGeneration:
    """Random float32 weights: the same seed gives the same bytes, and torch's own random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        built = vlm_config(config, len(tokenizer), tokenizer.get_vocab()[IMAGE_PAD])
        return VLMForConditionalGeneration._from_config(built, attn_implementation=attn_implementation, dtype=torch.float32)


def build_processor(config: Model, tokenizer: PreTrainedTokenizerFast) -> Processor:
    """The processor that belongs to the recipe's model."""
    vision = config.vision
    imagenet = vision.encoder in ("intern_vit", "intern_vit_6b")
    return Processor(
        tokenizer,
        patch=vision.patch,
        merge=config.connector.merge,
        temporal_patch=vision.temporal_patch if vision.encoder == "qwen2_vl_vit" else 1,
        resolution=_resolution(config),
        mean=IMAGENET_MEAN if imagenet else CLIP_MEAN,
        std=IMAGENET_STD if imagenet else CLIP_STD,
    )


def _resolution(config: Model) -> Resolution:
    kind, size = config.resolution.kind, config.resolution.size
    if kind == "native" or size is None:
        return Native(config.min_pixels, config.max_pixels)
    if kind == "fixed":
        return Fixed(size, config.resolution.fit)
    return Tiles(size, config.resolution.max_tiles, thumbnail=config.resolution.thumbnail)
