"""Image scores made of CLIP's own probability and the peak of a map, as CLIP-AD fuses them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

ImageScore = Literal["minmax_sum", "sum", "class_token"]  # rules of `fuse`


class Evidence(NamedTuple):
    """What image scores and maps are made of, for B images."""

    abnormal: Tensor  # the class token's abnormal probability: [B]
    peak: Tensor  # maximum of the finished map at the input size: [B]
    maps: Tensor  # [B, g, g]

    @staticmethod
    def collect(parts: Iterable[Evidence]) -> Evidence:
        """Return the evidence of several batches as one."""
        return Evidence(*(torch.cat(column) for column in zip(*parts, strict=True)))


def fuse(abnormal: Tensor, peak: Tensor, rule: ImageScore) -> Tensor:
    """Return image scores [N] of class token probabilities [N] and map maxima [N] (specs/methods/clip_ad_sdp.md §6).

    "minmax_sum" scales both to 0..1 over the N images first; "sum" does not; "class_token" drops the maxima.
    """
    if rule == "class_token":
        return abnormal
    return minmax(abnormal) + minmax(peak) if rule == "minmax_sum" else abnormal + peak


def minmax(values: Tensor, dim: tuple[int, ...] = (-1,)) -> Tensor:
    """Scale values to 0..1 over some dimensions; where they are equal they become 0."""
    lowest, highest = values.amin(dim=dim, keepdim=True), values.amax(dim=dim, keepdim=True)
    return (values - lowest) / (highest - lowest).clamp_min(torch.finfo(values.dtype).tiny)
