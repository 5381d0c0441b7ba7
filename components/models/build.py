"""A new model with random weights, from the recipe's `model` section."""

import torch
from transformers import PreTrainedTokenizerFast, Qwen2Config
from transformers.models.qwen2_vl.configuration_qwen2_vl import Qwen2VLVisionConfig

from components.recipe.model import Model

from .config import VLMConfig
from .errors import ModelError
from .processor import Processor
from .tokenizer import IMAGE_PAD
from .vlm import VLMForConditionalGeneration


def vlm_config(config: Model, tokenizer: PreTrainedTokenizerFast) -> VLMConfig:
    """The model's configuration; its vocabulary is the tokenizer's. Raises ModelError for an MLP ratio that the stock tower cannot have."""
    vision, llm = config.vision, config.llm
    if vision.mlp_ratio != int(vision.mlp_ratio):
        raise ModelError(f"model.vision.mlp_ratio is {vision.mlp_ratio}: the Qwen2-VL tower takes whole numbers.")
    return VLMConfig(
        vision=Qwen2VLVisionConfig(
            depth=vision.depth,
            embed_dim=vision.width,
            hidden_size=llm.hidden,
            num_heads=vision.heads,
            mlp_ratio=int(vision.mlp_ratio),
            patch_size=vision.patch,
            spatial_merge_size=config.connector.merge,
            temporal_patch_size=vision.temporal_patch,
            initializer_range=vision.init_std,
        ),
        llm=Qwen2Config(
            vocab_size=len(tokenizer),
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
        ),
        merge=config.connector.merge,
        image_token_id=tokenizer.get_vocab()[IMAGE_PAD],
        min_pixels=config.min_pixels,
        max_pixels=config.max_pixels,
    )


def build_model(config: Model, tokenizer: PreTrainedTokenizerFast, seed: int, attn_implementation: str = "sdpa") -> VLMForConditionalGeneration:
    """Random float32 weights: the same seed gives the same bytes, and torch's own random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return VLMForConditionalGeneration._from_config(vlm_config(config, tokenizer), attn_implementation=attn_implementation, dtype=torch.float32)


def build_processor(config: Model, tokenizer: PreTrainedTokenizerFast) -> Processor:
    """The processor that belongs to the recipe's model."""
    return Processor(
        tokenizer,
        patch=config.vision.patch,
        merge=config.connector.merge,
        temporal_patch=config.vision.temporal_patch,
        min_pixels=config.min_pixels,
        max_pixels=config.max_pixels,
    )
