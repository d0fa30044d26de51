"""Augmentation of training images: mosaics of four, and random changes of the colour and the place of one.

Mosaic: 2 x 2 images of one category as one training image (docs/methods/april_gan.md#training). As in
ByChelsea/VAND-APRIL-GAN@f13b8a6 dataset.py, an image of any defect (normal is one of them) is as likely as one of any
other, however many files each has. The first image decides the size of all four tiles.

Changes: those of Mwxinnn/AA-CLIP@53db195 dataset/__init__.py (docs/methods/aa_clip.md#training). Colours change in the
file's pixels; image and mask are moved after resizing and normalisation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional

from zsadbench.datasets import Sample
from zsadbench.recipes import Augmentation

TILES = 4


class Change(NamedTuple):
    """What becomes of one training image; nothing by default."""

    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    angle: float = 0.0  # degrees, against the clock
    shift: tuple[float, float] = (0.0, 0.0)  # to the right and down, as a share of the side
    mirrored: bool = False  # left and right exchanged
    upended: bool = False  # top and bottom exchanged


def draw_change(rules: Augmentation, rng: np.random.Generator) -> Change:
    """Draw what becomes of one image."""

    def maybe(chance: float, extent: float) -> float:
        return float(rng.uniform(-extent, extent)) if rng.random() < chance else 0.0

    brightness, contrast, saturation = (
        1 + maybe(rules.colour_chance, extent) for extent in (rules.brightness, rules.contrast, rules.saturation)
    )
    angle = maybe(rules.warp_chance, rules.rotation)
    moved = float(rng.random() < rules.warp_chance)
    shift = (maybe(moved, rules.translation), maybe(moved, rules.translation))
    mirrored, upended = (bool(rng.random() < chance) for chance in (rules.horizontal_flip, rules.vertical_flip))
    return Change(brightness, contrast, saturation, angle, shift, mirrored, upended)


def recolour(image: np.ndarray, change: Change) -> np.ndarray:
    """Return an image [H, W, 3] uint8 with the colours of a change."""
    adjusts = (functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation)
    for adjust, factor in zip(adjusts, (change.brightness, change.contrast, change.saturation), strict=True):
        if factor != 1:
            image = np.asarray(adjust(Image.fromarray(image), factor))
    return image


def move(pixels: Tensor, change: Change) -> Tensor:
    """Return a preprocessed image or mask [C, S, S] turned, shifted and flipped; what comes in from outside is 0.

    Values are those of the nearest pixel, so that a mask stays one.
    """
    side = pixels.shape[-1]
    if change.angle:
        pixels = functional.rotate(pixels, change.angle)
    shift = [round(share * side) for share in change.shift]
    if any(shift):
        pixels = functional.affine(pixels, angle=0, translate=shift, scale=1, shear=[0, 0])
    if change.mirrored:
        pixels = functional.horizontal_flip(pixels)
    return functional.vertical_flip(pixels) if change.upended else pixels


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
