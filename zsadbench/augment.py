"""Mosaic: 2 x 2 images of one category as one training image (specs/methods/april_gan.md §8).

As in ByChelsea/VAND-APRIL-GAN@f13b8a6 dataset.py, an image of any defect (normal is one of them) is as likely as one of
any other, however many files each has. The first image decides the size of all four tiles.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from zsadbench.datasets import Sample

TILES = 4


def draw(samples: Sequence[Sample], rng: np.random.Generator) -> tuple[Sample, ...]:
    """Draw the four samples of a mosaic from those of its category, with replacement: first a defect, then a sample."""
    groups: dict[tuple[int, str], list[Sample]] = {}
    for sample in samples:
        groups.setdefault((sample.label, sample.defect), []).append(sample)
    defects = sorted(groups)
    drawn = (groups[defects[rng.integers(len(defects))]] for _ in range(TILES))
    return tuple(group[rng.integers(len(group))] for group in drawn)


def tile(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Return four arrays [H, W, ...] of images or masks as one of the first's doubled size, row by row.

    A larger part is cut at its tile's border, a smaller one leaves zeros.
    """
    height, width = parts[0].shape[:2]
    whole = np.zeros((2 * height, 2 * width, *parts[0].shape[2:]), parts[0].dtype)
    for i, part in enumerate(parts):
        top, left = i // 2 * height, i % 2 * width
        cut = part[:height, :width]
        whole[top : top + cut.shape[0], left : left + cut.shape[1]] = cut
    return whole
