"""Image scores made of CLIP's own probability and the peak of a map, as CLIP-AD fuses them."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import resize, ten_crop

from zsadbench.components.similarity import abnormal_logit, unit
from zsadbench.encoders.base import Encoder
from zsadbench.encoders.features import FeatureRequest

CROP_ENLARGEMENT = 270 / 240  # CLIP-AD, supplement D: crops of 240 pixels from images of 270
ImageScore = Literal["minmax_sum", "sum", "class_token"]  # rules of `fuse`


def fuse(abnormal: Tensor, peak: Tensor, rule: ImageScore) -> Tensor:
    """Return image scores [N] of class token probabilities [N] and map maxima [N] (docs/methods/clip_ad.md).

    "minmax_sum" scales both to 0..1 over the N images first; "sum" does not; "class_token" drops the maxima.
    """
    if rule == "class_token":
        return abnormal
    return minmax(abnormal) + minmax(peak) if rule == "minmax_sum" else abnormal + peak


def crop_abnormal(encoder: Encoder, images: Tensor, text: Tensor, scale: float) -> Tensor:
    """Return the mean abnormal probability of ten crops: images [B, 3, S, S], text [2, J] -> [B].

    Corners and centre, and their mirror images, of the images enlarged from 240 to 270 pixels (CLIP-AD, supplement D,
    after WinCLIP, whose own crops are unpublished). The paper enlarges the file's image; a method sees the preprocessed
    one, so that fine detail is weaker here.
    """
    enlarged = resize(images, [round(encoder.size * CROP_ENLARGEMENT)] * 2, InterpolationMode.BICUBIC)
    crops = ten_crop(enlarged, [encoder.size, encoder.size])
    embeddings = (encoder.encode(crop, FeatureRequest(cls=True)).embedding for crop in crops)
    return torch.stack([abnormal_logit(unit(embedding), text, scale).sigmoid() for embedding in embeddings]).mean(dim=0)


def minmax(values: Tensor, dim: tuple[int, ...] = (-1,)) -> Tensor:
    """Scale values to 0..1 over some dimensions; where they are equal they become 0."""
    lowest, highest = values.amin(dim=dim, keepdim=True), values.amax(dim=dim, keepdim=True)
    return (values - lowest) / (highest - lowest).clamp_min(torch.finfo(values.dtype).tiny)
