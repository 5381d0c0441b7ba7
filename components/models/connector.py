"""Connector: Qwen2-VL's PatchMerger, newly initialised, as POINTS1.5 uses it ("two-layer MLP"; arXiv 2412.08443, section 2)."""

import torch
from torch import nn


class Connector(nn.Module):
    """LayerNorm, join `merge` x `merge` neighbouring patches, Linear, GELU (erf), Linear.

    Parameter names are the published checkpoint's (`ln_q`, `mlp.0`, `mlp.2`). The tower hands patches over in window order, so the patches
    of one window are consecutive rows and joining them is a view.
    """

    def __init__(self, width: int, merge: int, hidden: int) -> None:
        super().__init__()
        self.joined = width * merge**2
        self.ln_q = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(self.joined, self.joined), nn.GELU(), nn.Linear(self.joined, hidden))

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """(P, width) patch features in window order -> (P / merge^2, hidden) tokens."""
        return self.mlp(self.ln_q(patches).view(-1, self.joined))
