"""Configuration of the composed model: the two stock configurations of its parts, and what joins them."""

from typing import Any, ClassVar, Literal

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig
from transformers.configuration_utils import PreTrainedConfig, SubConfigSpec

Pool = Literal["patch_merge", "pixel_unshuffle", "none"]


@strict
class VLMConfig(PreTrainedConfig):
    """Tower -> pooling -> connector -> language model; `vision` and `llm` are stock configurations, their `model_type` says which part it is.

    `select_layer`: the tower layer whose output is used, counted from the end (-1: the last); the layers behind it are not built.
    `pool`, `merge`: `merge` x `merge` neighbouring patches become one token; see `connector.py`.
    """

    model_type: ClassVar[str] = "stockpot_vlm"
    sub_configs_defaults: ClassVar[dict[str, SubConfigSpec]] = {
        "vision": SubConfigSpec(AutoConfig, model_type="qwen2_vl_vision"),
        "llm": SubConfigSpec(AutoConfig, model_type="qwen2"),
    }

    vision: Any = None  # Qwen2VLVisionConfig, CLIPVisionConfig or InternVLVisionConfig; the base class makes one of a dict
    llm: Any = None  # Qwen2Config or LlamaConfig
    select_layer: int = -1
    pool: Pool = "patch_merge"
    merge: int = 2
    image_token_id: int = 151655
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        self.tie_word_embeddings = self.llm.tie_word_embeddings  # the language model decides; generic code asks the whole

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> PreTrainedConfig:
        """The language model's configuration: generation takes cache shapes and the vocabulary from it."""
        return self.llm
