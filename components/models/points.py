"""POINTS1.5 as a class of its own: the composed model, of the parts that its public weights are made for."""

from .config import VLMConfig
from .errors import ModelError
from .vlm import VLMForConditionalGeneration

PARTS = {"vision.model_type": "qwen2_vl_vision", "pool": "patch_merge", "llm.model_type": "qwen2", "select_layer": -1}


class PointsForConditionalGeneration(VLMForConditionalGeneration):
    """Qwen2-VL's tower at native resolution, merge of 2x2 patches, MLP, Qwen2 (arXiv 2412.08443, section 2). Trainable, unlike the published class."""

    def __init__(self, config: VLMConfig) -> None:
        check_points(config)
        super().__init__(config)


def check_points(config: VLMConfig) -> None:
    """Raises ModelError when the parts are not those of POINTS1.5."""
    found = {
        "vision.model_type": config.vision.model_type,
        "pool": config.pool,
        "llm.model_type": config.llm.model_type,
        "select_layer": config.select_layer,
    }
    for name, value in PARTS.items():
        if found[name] != value:
            raise ModelError(f"{name} is {found[name]!r}, POINTS1.5 has {value!r}: public checkpoints hold no other parts.")
