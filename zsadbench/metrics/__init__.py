"""Image-level and pixel-level metrics, exact by default; approximations that papers used are in `metrics.legacy`."""

from __future__ import annotations

from zsadbench.metrics.pixels import PixelCounts
from zsadbench.metrics.ranking import image_metrics

METRICS: dict[str, tuple[str, ...]] = {
    "image": ("auroc", "f1_max", "ap"),
    "pixel": ("auroc", "f1_max", "ap", "aupro"),
}  # level -> metric names in table order

__all__ = ["METRICS", "PixelCounts", "image_metrics"]
