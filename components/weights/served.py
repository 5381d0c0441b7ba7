"""The parameter names of SGLang's `POINTSV15ChatModel`, frozen (sglang 0.5.23, srt/models/points_v15_chat.py, qwen2.py, qwen2_vl.py).

Its loader raises for a name that it does not know and does not notice one that is missing, so both are checked before anything is written.
The width of a patch's features, 1280, is written into its class: a tower of another width cannot be served there.
"""

from collections.abc import Mapping

from components.errors import DataError
from components.models.config import VLMConfig

LAYER = (
    "input_layernorm.weight",
    "post_attention_layernorm.weight",
    "self_attn.qkv_proj.weight",
    "self_attn.qkv_proj.bias",
    "self_attn.o_proj.weight",
    "mlp.gate_up_proj.weight",
    "mlp.down_proj.weight",
)
BLOCK = tuple(f"{part}.{kind}" for part in ("norm1", "norm2", "attn.qkv_proj", "attn.proj", "mlp.fc1", "mlp.fc2") for kind in ("weight", "bias"))
MERGER = tuple(f"{part}.{kind}" for part in ("ln_q", "mlp.0", "mlp.2") for kind in ("weight", "bias"))
STACKED = {"q_proj": "qkv_proj", "k_proj": "qkv_proj", "v_proj": "qkv_proj", "gate_proj": "gate_up_proj", "up_proj": "gate_up_proj"}


def served_names(config: VLMConfig) -> set[str]:
    """Names of all parameters that SGLang's class has for this configuration."""
    names = {"llm.model.embed_tokens.weight", "llm.model.norm.weight", "vision_encoder.patch_embed.proj.weight"}
    names |= set() if config.llm.tie_word_embeddings else {"llm.lm_head.weight"}
    names |= {f"llm.model.layers.{i}.{name}" for i in range(config.llm.num_hidden_layers) for name in LAYER}
    names |= {f"vision_encoder.blocks.{i}.{name}" for i in range(config.vision.depth) for name in BLOCK}
    return names | {f"{part}.{name}" for part in ("vision_encoder.merger", "vision_projector") for name in MERGER}


def loads_as(name: str) -> str:
    """The parameter that SGLang's loader puts a tensor of layout B into."""
    for part, whole in STACKED.items():
        if part in name:
            return name.replace(part, whole)
    return name.replace("attn.qkv.", "attn.qkv_proj.") if "vision_encoder" in name else name


def check_served(shapes: Mapping[str, tuple[int, ...]], config: VLMConfig) -> None:
    """Raises DataError when SGLang would refuse a tensor, or silently miss one (its own dead merger may be missing)."""
    known, given = served_names(config), {loads_as(name) for name in shapes}
    if unknown := sorted(given - known):
        raise DataError(f"{unknown[0]}: SGLang has no such parameter: the checkpoint cannot be served as it is")
    if missing := sorted(name for name in known - given if not name.startswith("vision_encoder.merger.")):
        raise DataError(f"{missing[0]}: missing, and SGLang would not notice: the checkpoint cannot be served as it is")
