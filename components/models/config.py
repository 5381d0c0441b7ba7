"""Configuration of the composed model: the two stock configurations of its parts, and what joins them."""

from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import Qwen2Config
from transformers.configuration_utils import PreTrainedConfig, SubConfigSpec
from transformers.models.qwen2_vl.configuration_qwen2_vl import Qwen2VLVisionConfig


@strict
class VLMConfig(PreTrainedConfig):
    """POINTS1.5's composition: tower -> connector -> language model.

    `merge` counts the patches per side that become one token. `min_pixels` and `max_pixels` are the area that pictures were trained at.
    """

    model_type: ClassVar[str] = "stockpot_vlm"
    sub_configs_defaults: ClassVar[dict[str, SubConfigSpec]] = {"vision": SubConfigSpec(Qwen2VLVisionConfig), "llm": SubConfigSpec(Qwen2Config)}

    vision: Any = None  # Qwen2VLVisionConfig; the base class makes one of a dict
    llm: Any = None  # Qwen2Config
    merge: int = 2
    image_token_id: int = 151655
    min_pixels: int = 3136
    max_pixels: int = 12_845_056
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        self.tie_word_embeddings = self.llm.tie_word_embeddings  # the language model decides; generic code asks the whole

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> PreTrainedConfig:
        """The language model's configuration: generation takes cache shapes and the vocabulary from it."""
        return self.llm
