"""The vision-language model, composed of parts: a tower, pooling and connector, a stock language model with 1-D RoPE.

LLaVA style (POINTS1.5: arXiv 2412.08443, section 2): the connector's rows stand in place of the embeddings of `<|image_pad|>`.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import GenerationMixin, LlamaForCausalLM, PreTrainedModel, Qwen2ForCausalLM
from transformers.modeling_outputs import CausalLMOutputWithPast

from .config import VLMConfig
from .connector import Connector
from .errors import ModelError
from .towers import build_tower
from .varlen import NAME as VARLEN

IGNORED = -100
ATTENTION = ("sdpa", "eager", "flash_attention_2", VARLEN)
"""`attn_implementation`s that keep packed samples apart."""
GROUPS = ("vision", "connector", "llm")
LLMS: dict[str, type[Qwen2ForCausalLM | LlamaForCausalLM]] = {"qwen2": Qwen2ForCausalLM, "llama": LlamaForCausalLM}
"""Language models by the `model_type` of their configuration."""


class VLMForConditionalGeneration(PreTrainedModel, GenerationMixin):
    """Tower -> pooling and connector -> language model. Module groups: `vision`, `connector`, `llm`."""

    config: VLMConfig
    config_class = VLMConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    def __init__(self, config: VLMConfig) -> None:
        super().__init__(config)
        if config.llm.model_type not in LLMS:
            raise ModelError(f"llm.model_type is {config.llm.model_type!r}, known language models: {', '.join(LLMS)}.")
        self.vision = build_tower(config.vision, config.select_layer, config.merge)
        self.connector = Connector(config.pool, self.vision.width, config.merge, config.llm.hidden_size)
        self.llm = LLMS[config.llm.model_type](config.llm)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Tower and language model initialise themselves, each with its own `initializer_range`; the connector takes torch's defaults."""
        if isinstance(module, nn.Linear | nn.LayerNorm):
            module.reset_parameters()

    def get_input_embeddings(self) -> nn.Module:
        """The token embedding of the language model."""
        return self.llm.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the token embedding of the language model."""
        self.llm.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """The head of the language model."""
        return self.llm.lm_head

    def groups(self) -> dict[str, list[str]]:
        """Parameter names by module group: every parameter exactly once (tied ones under their first name), in model order."""
        names = [name for name, _ in self.named_parameters()]
        return {group: [name for name in names if name.startswith(f"{group}.")] for group in GROUPS}

    def features(self, pixel_values: torch.Tensor, image_grid_thw: torch.Tensor) -> torch.Tensor:
        """Language-model tokens of pictures.

        `pixel_values` (P, C*T*p*p) holds the patch rows of all views one after the other, `image_grid_thw` (N, 3) their grids in patches;
        a picture has one view, or several tiles. Returns (P / merge^2, hidden). Views do not see each other.
        """
        return self.connector(self.vision.patches(pixel_values, image_grid_thw))

    def forward(
        self,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        *,
        pixel_values: torch.Tensor | None = None,
        image_grid_thw: torch.Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        num_items_in_batch: int | torch.Tensor | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits (B, L, vocab), and with `labels` (B, L) the mean next-token loss over the labels that are not -100 after the shift.

        Three ways to call it: packed rows = `position_ids` that restart at 0, no `attention_mask`, no cache; padded rows = 2-D
        `attention_mask` (positions are counted from it); one sequence = neither. `num_items_in_batch` replaces the count that the
        loss is divided by (gradient accumulation, several ranks). In training mode tower and connector run even without pictures,
        on one blank view with weight 0: ranks that skip modules make collective operations of ZeRO disagree.
        Raises ModelError when packed rows come with a mask or a cache (attention would leak silently between samples) and
        when the pictures do not fill the `<|image_pad|>` places exactly.
        """
        use_cache = bool(use_cache)
        self._refuse_leaks(position_ids, attention_mask, use_cache or past_key_values is not None)
        if position_ids is None and attention_mask is not None and attention_mask.ndim == 2:
            position_ids = positions(attention_mask)[:, -input_ids.shape[1] :]
        outputs = self.llm(
            inputs_embeds=self._embed(input_ids, pixel_values, image_grid_thw),
            position_ids=position_ids,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            use_cache=use_cache,
            logits_to_keep=logits_to_keep,
            **kwargs,
        )
        loss = None if labels is None else next_token_loss(outputs.logits, labels, num_items_in_batch)
        return CausalLMOutputWithPast(loss=loss, logits=outputs.logits, past_key_values=outputs.past_key_values)

    def prepare_inputs_for_generation(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, input_ids: torch.Tensor, *, is_first_iteration: bool = False, **kwargs: Any
    ) -> dict[str, Any]:
        """As the stock method; pictures go in once, with the prompt: later steps find them in the cache."""
        inputs = super().prepare_inputs_for_generation(input_ids, is_first_iteration=is_first_iteration, **kwargs)  # pyright: ignore[reportAttributeAccessIssue]
        if not is_first_iteration and kwargs.get("use_cache", True):
            inputs["pixel_values"] = inputs["image_grid_thw"] = None
        return inputs

    def _embed(self, input_ids: torch.Tensor, pixel_values: torch.Tensor | None, image_grid_thw: torch.Tensor | None) -> torch.Tensor:
        embeds = self.get_input_embeddings()(input_ids)
        if pixel_values is None or image_grid_thw is None:
            return embeds + self.features(*self.vision.blank(embeds)).to(embeds).sum() * 0.0 if self.training else embeds
        features = self.features(pixel_values, image_grid_thw)
        places = input_ids == self.config.image_token_id
        if int(places.sum()) != len(features):
            raise ModelError(f"{len(features)} picture tokens for {int(places.sum())} <|image_pad|> places: encode text and pictures with one processor.")
        return embeds.masked_scatter(places.unsqueeze(-1).to(embeds.device), features.to(embeds))  # groups may be on different devices

    @staticmethod
    def _refuse_leaks(position_ids: torch.Tensor | None, attention_mask: torch.Tensor | None, cached: bool) -> None:
        """transformers cuts attention at restarting positions only when there is neither a mask nor a cache; else it leaks without a word."""
        if position_ids is None or position_ids.shape[-1] < 2 or (attention_mask is None and not cached):
            return
        restart = position_ids[:, 1:] != position_ids[:, :-1] + 1
        if attention_mask is not None and attention_mask.ndim == 2:
            real = attention_mask[:, -position_ids.shape[1] :].bool()
            restart = restart & real[:, 1:] & real[:, :-1]
        if bool(restart.any()):
            raise ModelError("packed rows (positions that restart) must come without attention_mask and cache: samples would see each other.")


def positions(attention_mask: torch.Tensor) -> torch.Tensor:
    """1-D positions (B, L) of a 0/1 mask (B, L): 0 for the first real token of a row, wherever the padding stands."""
    return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)


def next_token_loss(logits: torch.Tensor, labels: torch.Tensor, num_items: int | torch.Tensor | None = None) -> torch.Tensor:
    """Cross-entropy (float32 scalar) of logits (B, L, V) against labels (B, L) moved by one; -100 is ignored; 0 when nothing is learned."""
    targets = F.pad(labels[:, 1:], (0, 1), value=IGNORED).to(logits.device)
    total = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum")
    return total / ((targets != IGNORED).sum().clamp(min=1) if num_items is None else num_items)
