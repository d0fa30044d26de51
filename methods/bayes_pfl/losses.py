"""Bayes-PFL's losses of maps and text, beside the divergence of its distributions (docs/methods/bayes_pfl.md)."""

from __future__ import annotations

import torch
from torch import Tensor

from zsadbench.components import losses


def balanced_focal(maps: Tensor, masks: Tensor, gamma: float = 2.0, smooth: float = 1e-8) -> Tensor:
    """Return the focal loss of abnormal probabilities, its mean over abnormal plus that over normal pixels (§Training).

    maps: [B, S, S] in 0..1; masks: [B, S, S] of 0 and 1. A kind without pixels counts nothing.
    """
    agreement = torch.where(masks > 0, maps, 1 - maps)
    pixels = -((1 - agreement) ** gamma) * (agreement + smooth).log()
    means = [(pixels * kind).sum() / (kind.sum() + smooth) for kind in (masks, 1 - masks)]
    return means[0] + means[1]


def batch_dice(maps: Tensor, masks: Tensor) -> Tensor:
    """Return one minus the Dice overlap of all maps of a batch together, [B, S, S] (§Training)."""
    return losses.dice(maps.reshape(1, -1), masks.reshape(1, -1), smooth=1e-5)


def orthogonality_loss(text: Tensor) -> Tensor:
    """Return the mean squared cosine of different rows, normal plus abnormal; unit text [B, 2, K, J] (§Training).

    The mean is over all K x K pairs, those of a row with itself counting 0.
    """
    cosines = text @ text.mT  # [B, 2, K, K]
    others = 1 - torch.eye(text.shape[2], device=text.device)
    return (cosines.square() * others).mean(dim=(0, 2, 3)).sum()
