"""Losses of pictures against captions. Pure functions of unit vectors: a rank computes the part of its own rows against those of all ranks."""

import torch
from torch.nn import functional as F


def negatives(captions: torch.Tensor, rows: slice) -> torch.Tensor:
    """bool (rows, N): whether row i's picture is to be told from caption j. Not from its own, nor from one with the same text (`captions`, int64 (N,))."""
    return captions[rows, None] != captions[None, :]


def softmax_loss(images: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor, *, wrong: torch.Tensor, rows: slice) -> torch.Tensor:
    """The part of `rows` in InfoNCE in both directions, the mean over N pairs (Radford et al. 2021, arXiv 2103.00020, figure 3).

    `images` and `texts` float32 (N, D) of length 1, in the same order; `wrong` as from `negatives`. A caption that is neither wrong nor the row's own is
    left out of the denominator. The parts of all ranks add up to the loss.
    """
    own = torch.arange(len(images), device=images.device)[rows]
    left_out = ~wrong
    left_out[torch.arange(len(own), device=own.device), own] = False
    logits = [(scale * a[rows] @ b.T).masked_fill(left_out, -torch.inf) for a, b in ((images, texts), (texts, images))]
    return sum((F.cross_entropy(part, own, reduction="sum") for part in logits), images.new_zeros(())) / (2 * len(images))


def sigmoid_loss(images: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor, *, wrong: torch.Tensor, rows: slice) -> torch.Tensor:
    """The part of `rows` in the sigmoid loss, the sum over all pairs divided by N (Zhai et al. 2023, arXiv 2303.15343, equation in section 3.2).

    Arguments as of `softmax_loss`; a pair that is neither wrong nor the row's own does not count.
    """
    numbers = torch.arange(len(images), device=images.device)
    own = numbers[rows, None] == numbers
    logits = scale * images[rows] @ texts.T + bias
    losses = F.softplus(torch.where(own, -logits, logits))
    return losses[own | wrong].sum() / len(images)
