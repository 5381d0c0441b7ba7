"""`attn_implementation="varlen"`: packed rows without a mask, each sample attended by itself. Costs the sum of squares of the samples, not of the row.

For machines without flash attention, the CPU among them; where rows are not packed it is transformers' sdpa.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

NAME = "varlen"


def varlen_attention(
    module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: torch.Tensor | None, **kwargs: Any
) -> tuple[torch.Tensor, None]:
    """(B, heads, L, D) queries, (B, kv_heads, L, D) keys and values -> (B, L, heads, D). Samples begin where `position_ids` (B, L) is 0."""
    position_ids = kwargs.get("position_ids")
    if attention_mask is not None or position_ids is None or position_ids.ndim != 2 or query.shape[2] != key.shape[2]:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)  # pyright: ignore[reportReturnType]
    rows = []
    for row in range(query.shape[0]):
        starts = (position_ids[row if len(position_ids) > 1 else 0] == 0).nonzero().flatten().tolist()
        lengths = [end - start for start, end in zip([0, *starts[1:]], [*starts[1:], query.shape[2]], strict=True)]
        parts = zip(*(x[row : row + 1].split(lengths, dim=2) for x in (query, key, value)), strict=True)
        rows.append(torch.cat([_causal(q, k, v, kwargs) for q, k, v in parts], 2))
    return torch.cat(rows).transpose(1, 2).contiguous(), None


def _causal(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, kwargs: dict[str, Any]) -> torch.Tensor:
    grouped = query.shape[1] != key.shape[1]
    return F.scaled_dot_product_attention(
        query, key, value, is_causal=query.shape[2] > 1, scale=kwargs.get("scaling"), dropout_p=kwargs.get("dropout", 0.0), enable_gqa=grouped
    )


def varlen_mask(*args: Any, **kwargs: Any) -> torch.Tensor | None:
    """No mask for packed rows; padded rows and steps from a cache take sdpa's."""
    if kwargs.get("attention_mask") is None and kwargs.get("q_length") == kwargs.get("kv_length"):
        return None
    return sdpa_mask(*args, **kwargs)


AttentionInterface.register(NAME, varlen_attention)
AttentionMaskInterface.register(NAME, varlen_mask)
