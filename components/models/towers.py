"""Vision towers: stock transformers encoders behind one method, `patches`. Weights that no output depends on are not built.

A tower takes patch rows and grids, and gives patch features in window order: the `merge` x `merge` patches of a window one after the other.
"""

from typing import Any

import torch
from torch import nn
from transformers import CLIPVisionModel
from transformers.configuration_utils import PreTrainedConfig
from transformers.models.internvl.modeling_internvl import InternVLVisionModel
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VisionTransformerPretrainedModel

from .errors import ModelError


class Qwen2VLTower(Qwen2VisionTransformerPretrainedModel):
    """Native resolution, pictures packed and kept apart by cu_seqlens (NaViT), 2-D RoPE. Its own merger is an Identity: it is never used."""

    def __init__(self, config: Any, select_layer: int = -1, merge: int = 2) -> None:
        super().__init__(config)
        self.merger = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
        _cut(self.blocks, select_layer)

    @property
    def width(self) -> int:
        """Width of a patch's features."""
        return self.config.embed_dim

    def blank(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows and grid of the smallest picture that the tower takes, grey: one window. Dtype and device of `like`."""
        config, side = self.config, self.spatial_merge_size
        return _grey(like, side, config.in_channels * _first(config.temporal_patch_size) * _first(config.patch_size) ** 2)

    def patches(self, rows: torch.Tensor, grids: torch.Tensor) -> torch.Tensor:
        """(P, C*T*p*p) rows of all pictures, (N, 3) grids -> (P, width)."""
        return self(rows, grid_thw=grids).last_hidden_state


class FixedTower(nn.Module):
    """What towers with learned absolute positions share: every view is a square of one size, and has a class token that is dropped."""

    config: Any
    merge: int

    @property
    def width(self) -> int:
        """Width of a patch's features."""
        return self.config.hidden_size

    def blank(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows and grid of one grey view. Dtype and device of `like`."""
        return _grey(like, self._side, 3 * _first(self.config.patch_size) ** 2)

    @property
    def _side(self) -> int:
        """Patches per side of a view."""
        return _first(self.config.image_size) // _first(self.config.patch_size)

    def patches(self, rows: torch.Tensor, grids: torch.Tensor) -> torch.Tensor:
        """(P, 3*p*p) rows of all views in window order, (N, 3) grids -> (P, width). Raises ModelError for views of another size."""
        side, merge, patch = self._side, self.merge, _first(self.config.patch_size)
        if bool((grids[:, 1:] != side).any()):
            raise ModelError(f"the tower takes views of {side}x{side} patches: encode pictures with the model's own processor.")
        windows = (-1, side // merge, side // merge, merge, merge)
        pixels = rows.view(*windows, 3, patch, patch).permute(0, 5, 1, 3, 6, 2, 4, 7).reshape(-1, 3, side * patch, side * patch)
        states = self(pixels).last_hidden_state[:, 1:]
        return states.view(-1, side // merge, merge, side // merge, merge, self.width).transpose(2, 3).reshape(-1, self.width)


class ClipTower(FixedTower, CLIPVisionModel):
    """CLIP's vision transformer. The norm behind the last layer belongs to the class token, so it is an Identity."""

    def __init__(self, config: Any, select_layer: int = -1, merge: int = 1) -> None:
        CLIPVisionModel.__init__(self, config)
        self.merge = merge
        self.post_layernorm = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
        _cut(self.encoder.layers, select_layer)


class InternTower(FixedTower, InternVLVisionModel):
    """InternViT: layer scale, and RMSNorm of queries and keys where the configuration says so."""

    def __init__(self, config: Any, select_layer: int = -1, merge: int = 2) -> None:
        InternVLVisionModel.__init__(self, config)
        self.merge = merge
        _cut(self.encoder.layer, select_layer)


Tower = Qwen2VLTower | ClipTower | InternTower
TOWERS: dict[str, type[Tower]] = {"qwen2_vl_vision": Qwen2VLTower, "clip_vision_model": ClipTower, "internvl_vision": InternTower}


def build_tower(config: PreTrainedConfig, select_layer: int, merge: int) -> Tower:
    """The tower of a vision configuration. Raises ModelError for a model type without one, and for a layer that it does not have."""
    if config.model_type not in TOWERS:
        raise ModelError(f"vision.model_type is {config.model_type!r}, known towers: {', '.join(TOWERS)}.")
    return TOWERS[config.model_type](config, select_layer, merge)


def _cut(layers: nn.ModuleList, select_layer: int) -> None:
    """Removes the layers behind the selected one."""
    if not -len(layers) <= select_layer <= -1:
        raise ModelError(f"select_layer is {select_layer}: the tower has the layers -{len(layers)} to -1.")
    if select_layer < -1:
        del layers[select_layer + 1 :]


def _grey(like: torch.Tensor, side: int, row: int) -> tuple[torch.Tensor, torch.Tensor]:
    """No weight may be looked at here, not even its dtype: under ZeRO-3 it would become a parameter of the calling module too, on one rank alone."""
    return like.new_zeros(side**2, row), torch.tensor([[1, side, side]], device=like.device)


def _first(size: Any) -> int:
    """A side of a square that configurations write as a number or as a pair."""
    return size if isinstance(size, int) else size[0]
