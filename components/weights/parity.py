"""A decoder layer by layout A's own mathematics, written from the published remote code's description and not from Qwen2's: the proof of the mapping."""

from collections.abc import Mapping

import torch
from torch.nn import functional as F
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer, Qwen2RotaryEmbedding

from components.models.config import VLMConfig
from components.weights.checkpoint import Checkpoint
from components.weights.layouts import from_b

TOKENS = 8


def layer_difference(checkpoint: Checkpoint, layer: int = 0) -> float:
    """Largest difference, over the largest output, between one layer computed by layout A's mathematics and by transformers' Qwen2 (float32)."""
    config = checkpoint.config.llm
    fused = from_b("A", checkpoint.entries, checkpoint.shape)
    a, b = f"llm.lm.layers.{layer}.", f"llm.model.layers.{layer}."
    hidden = torch.randn(1, TOKENS, config.hidden_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        by_a = layer_a(hidden, {name.removeprefix(a): e.load().float() for name, e in fused.items() if name.startswith(a)}, checkpoint.config)
        stock = Qwen2DecoderLayer(config, 0).eval()
        stock.load_state_dict({name.removeprefix(b): e.load().float() for name, e in checkpoint.entries.items() if name.startswith(b)})
        places = torch.arange(TOKENS)[None]
        mask = torch.full((TOKENS, TOKENS), float("-inf")).triu(1)[None, None]
        by_b = stock(hidden, attention_mask=mask, position_ids=places, position_embeddings=Qwen2RotaryEmbedding(config)(hidden, places))
    by_b = by_b[0] if isinstance(by_b, tuple) else by_b
    return float((by_a - by_b).abs().max() / by_b.abs().max())


def layer_a(hidden: torch.Tensor, w: Mapping[str, torch.Tensor], config: VLMConfig) -> torch.Tensor:
    """One layer of layout A: (1, T, hidden) -> the same. `w` holds its tensors by their names within the layer."""
    llm = config.llm
    heads, kv_heads = llm.num_attention_heads, llm.num_key_value_heads
    head = llm.hidden_size // heads
    tokens = hidden.shape[1]
    normed = rms_norm(hidden[0], w["input_layernorm.weight"], llm.rms_norm_eps)
    query = F.linear(normed, w["attention.query_dense.weight"], w["attention.query_dense.bias"]).view(tokens, heads, head)
    mixed = F.linear(normed, w["attention.key_value_dense.weight"], w["attention.key_value_dense.bias"]).view(tokens, kv_heads, 2 * head)
    key, value = mixed.split(head, -1)
    angle = torch.arange(tokens)[:, None] / llm.rope_parameters["rope_theta"] ** (torch.arange(0, head, 2) / head)
    turn = torch.cat([angle, angle], -1)[:, None]
    query, key = (x * turn.cos() + torch.cat([-x[..., head // 2 :], x[..., : head // 2]], -1) * turn.sin() for x in (query, key))
    group = heads // kv_heads
    key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
    scores = torch.einsum("qhd,khd->hqk", query, key) / head**0.5
    scores = scores.masked_fill(torch.ones(tokens, tokens, dtype=torch.bool).triu(1), float("-inf"))
    attended = torch.einsum("hqk,khd->qhd", scores.softmax(-1), value).reshape(tokens, -1)
    hidden = hidden + F.linear(attended, w["attention.dense.weight"])
    normed = rms_norm(hidden[0], w["post_attention_layernorm.weight"], llm.rms_norm_eps)
    up, gate = F.linear(normed, w["mlp.dense_h_to_4h.weight"]).chunk(2, -1)
    return hidden + F.linear(up * F.silu(gate), w["mlp.dense_4h_to_h.weight"])


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """x over its root mean square, times the weight."""
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight
