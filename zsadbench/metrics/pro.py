"""AU-PRO: the mean overlap of the anomalous regions, integrated over the false positive rate (docs/metrics.md)."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from zsadbench.metrics.ranking import Ranking

Floats = NDArray[np.float64]


class Regions(NamedTuple):
    """The connected components of one mask, pixel by pixel in row-major order."""

    pixels: NDArray[np.int64]  # [P] flat positions of the anomalous pixels
    sizes: NDArray[np.int64]  # [P] number of pixels of the region that each belongs to
    number: int  # of regions


class Curve(NamedTuple):
    """The overlap curve at K thresholds: it rises from (above, before) to (through, overlap) and is flat between."""

    above: Floats  # [K] false positives before the threshold, in pixels
    through: Floats  # [K] false positives at the threshold
    before: Floats  # [K] mean region overlap before the threshold, 0 to 1
    overlap: Floats  # [K] mean region overlap at the threshold


def regions(mask: NDArray[np.bool_], connectivity: int = 8) -> Regions:
    """Return the regions of a mask [H, W]: `connectivity` 8 joins pixels at corners, 4 does not."""
    pixels = np.flatnonzero(mask)
    if not pixels.size:
        return Regions(pixels, pixels, 0)
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    window = np.ascontiguousarray(mask[y : y + height, x : x + width])
    labels_with_background, labels = cv2.connectedComponents(window.view(np.uint8), connectivity=connectivity)
    region = labels[window]  # from 1; 0 is the background
    return Regions(pixels, np.bincount(region)[region], labels_with_background - 1)


def overlap_curve(ranking: Ranking, weights: Floats) -> Curve:
    """Return the curve. weights: [K], sum of 1 / |region| over the positives with exactly this score."""
    overlap = np.cumsum(weights)
    overlap /= overlap[-1]  # the number of regions, up to the rounding of 1 / |region|: the curve ends at 1 exactly
    before = np.concatenate(([0.0], overlap[:-1]))
    return Curve(ranking.above.astype(np.float64), ranking.through.astype(np.float64), before, overlap)


def aupro(ranking: Ranking, weights: Floats, limit: float = 0.3) -> float | None:
    """Return the area under the curve up to the false positive rate `limit`, over `limit`; None without P or N.

    The curve starts at (0, 0), is linear between its points and is cut at the limit by interpolation.
    """
    if not ranking.positives or not ranking.negatives:
        return None
    end = limit * ranking.negatives
    curve = overlap_curve(ranking, weights)
    left = np.minimum(np.concatenate(([0.0], curve.through)), end)
    right = np.minimum(np.concatenate((curve.above, [float(ranking.negatives)])), end)
    flat = np.sum((right - left) * np.concatenate((curve.before, curve.overlap[-1:])))
    return float((flat + np.sum(rising_areas(curve, end))) / end)


def rising_areas(curve: Curve, end: float) -> Floats:
    """Return [K], the area under each rising piece of the curve that lies left of `end` false positives."""
    width = np.minimum(curve.through, end) - np.minimum(curve.above, end)
    part = width / np.maximum(curve.through - curve.above, 1)
    return width * (curve.before + (curve.overlap - curve.before) * part / 2)
