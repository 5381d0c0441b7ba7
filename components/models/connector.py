"""Pooling and connector: neighbouring patches are joined into one token, which a two-layer MLP brings to the language model's width."""

import torch
from torch import nn

from .config import Pool


class Connector(nn.Module):
    """Join `merge` x `merge` neighbouring patches, Linear, GELU (erf), Linear. `pool` says what surrounds the joining:

    - patch_merge: LayerNorm before it, an inner width of the joined patches: Qwen2-VL's PatchMerger, newly initialised, as in POINTS1.5
      (arXiv 2412.08443, section 2).
    - pixel_unshuffle: LayerNorm behind it, the inner width of the language model: InternVL-1.5 (arXiv 2404.16821, section 3.1).
    - none: no joining (`merge` 1) and no LayerNorm: LLaVA-1.5 (arXiv 2310.03744).

    Parameter names are POINTS1.5's published ones (`ln_q`, `mlp.0`, `mlp.2`). Towers hand patches over in window order, so the patches
    of one window are consecutive rows and joining them is a view.
    """

    def __init__(self, pool: Pool, width: int, merge: int, hidden: int) -> None:
        super().__init__()
        self.pool, self.joined = pool, width * merge**2
        if pool != "none":
            self.ln_q = nn.LayerNorm(width, eps=1e-6) if pool == "patch_merge" else nn.LayerNorm(self.joined)
        inner = self.joined if pool == "patch_merge" else hidden
        self.mlp = nn.Sequential(nn.Linear(self.joined, inner), nn.GELU(), nn.Linear(inner, hidden))

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """(P, width) patch features in window order -> (P / merge^2, hidden) tokens."""
        if self.pool == "patch_merge":
            patches = self.ln_q(patches)
        joined = patches.reshape(-1, self.joined)
        if self.pool == "pixel_unshuffle":
            joined = self.ln_q(joined)
        return self.mlp(joined)
