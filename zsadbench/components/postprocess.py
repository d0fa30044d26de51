"""The only interpolation and the only Gaussian of the project: from a method's maps to maps of the evaluation size."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from zsadbench.methods import Method

TRUNCATE = 4.0  # standard deviations where the Gaussian ends: scipy's default (docs/protocol.md#upsampling)


def finish(maps: Tensor, method: Method, size: int | tuple[int, int]) -> Tensor:
    """Upsample and smooth predicted maps as their method declares it: [B, h, w] -> [B, H, W] float32."""
    return smooth(resize_maps(maps, size, method.align_corners), method.sigma)


def resize_maps(maps: Tensor, size: int | tuple[int, int], align_corners: bool) -> Tensor:
    """Resize maps [B, h, w] bilinearly to [B, H, W]; `size` is (H, W), or one side of a square. Differentiable."""
    height, width = (size, size) if isinstance(size, int) else size
    if maps.shape[1:] == (height, width):
        return maps
    return functional.interpolate(maps[:, None], (height, width), mode="bilinear", align_corners=align_corners)[:, 0]


def smooth(maps: Tensor, sigma: float) -> Tensor:
    """Blur maps [B, H, W] with a Gaussian of `sigma` pixels, truncated at 4 sigma and reflected at the border.

    Equals `scipy.ndimage.gaussian_filter(map, sigma, truncate=4, mode="reflect")` of each map, on any device. The
    filter is separable and linear, so it is two matrix products with operators that already hold the reflection.
    """
    if sigma == 0:
        return maps
    rows = gaussian_operator(maps.shape[1], sigma, maps.device).to(maps.dtype)
    columns = gaussian_operator(maps.shape[2], sigma, maps.device).to(maps.dtype)
    return rows @ (maps @ columns.T)


@lru_cache(maxsize=8)
@torch.inference_mode(False)  # cached for callers with and without autograd
def gaussian_operator(length: int, sigma: float, device: torch.device) -> Tensor:
    """Return the matrix [length, length] float32 whose product with a signal is its Gaussian blur."""
    radius = int(TRUNCATE * sigma + 0.5)  # scipy's rounding
    offsets = torch.arange(-radius, radius + 1)
    weights = torch.exp(-0.5 * (offsets.double() / sigma) ** 2)
    # Reflection (d c b a | a b c d | d c b a) repeats every 2 * length samples and is symmetric inside.
    sources = (torch.arange(length)[:, None] + offsets) % (2 * length)
    sources = torch.minimum(sources, 2 * length - 1 - sources)
    operator = torch.zeros(length, length, dtype=torch.float64)
    operator.scatter_add_(1, sources, (weights / weights.sum()).expand(length, -1))
    return operator.float().to(device)
