"""Losses that several trained methods share (docs/training.md#losses)."""

from __future__ import annotations

import torch
from torch import Tensor


def focal(probabilities: Tensor, masks: Tensor, gamma: float = 2.0, smooth: float = 1e-5) -> Tensor:
    """Return the focal loss of class probabilities against masks, a mean over all pixels.

    probabilities: [B, 2, H, W], channel 1 is anomalous; masks: [B, H, W] of 0 and 1. The one-hot target is clamped to
    [smooth, 1 - smooth], as in the code of APRIL-GAN, CLIP-AD, AnomalyCLIP and AdaCLIP.
    """
    target = torch.stack([1 - masks, masks], dim=1).clamp(smooth, 1 - smooth)
    agreement = (target * probabilities).sum(dim=1) + smooth
    return (-((1 - agreement) ** gamma) * agreement.log()).mean()


def dice(probabilities: Tensor, masks: Tensor, smooth: float = 1.0) -> Tensor:
    """Return one minus the Dice overlap of maps with masks, both [B, H, W], a mean over images."""
    overlap = (probabilities * masks).flatten(1).sum(dim=1)
    total = probabilities.flatten(1).sum(dim=1) + masks.flatten(1).sum(dim=1)
    return (1 - (2 * overlap + smooth) / (total + smooth)).mean()
