"""Masks: file -> foreground at native size -> foreground at the evaluation size. Two steps, each with its own rule."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from zsadbench.data.images import open_image
from zsadbench.datasets import MaskRule, Sample
from zsadbench.errors import DataError
from zsadbench.protocol import ResizeRule

_ALPHA = ("LA", "RGBA")
_PLAIN = ("L", "RGB", "P", "I;16", "I;16B", "I")


def read_mask(sample: Sample, rule: MaskRule, image_size: tuple[int, int]) -> np.ndarray:
    """Return the foreground of a sample, [H, W] bool at native size; several masks are united.

    `image_size` is (H, W) of the whole image, of which the sample may be a part. A normal image without a mask file is
    all background. Raises DataError for an anomalous image without a mask, a mask of another size, a normal image whose
    mask marks something, or a mask that is too dark for its rule (VisA's class indices under gt127: the commonest
    complaint, docs/datasets/index.md#complaints).
    """
    if not sample.masks and sample.label == 1:
        raise DataError(f"{sample.image} is anomalous, but has no mask; expected one, as for the rest of its dataset.")
    union = sample.cut(np.zeros(image_size, bool))
    for path in sample.masks:
        values = raw_mask(path, rule)
        if values.shape != image_size:
            raise DataError(
                f"{path} is {values.shape[0]} pixels high and {values.shape[1]} wide, but its image {sample.image} is "
                f"{image_size[0]} high and {image_size[1]} wide; expected equal sizes."
            )
        values = sample.cut(values)
        mask = foreground(values, rule)
        if sample.label == 1 and values.any() and not mask.any():
            raise DataError(
                f"{path} has values up to {values.max()}, all background under the rule {rule}; expected 0 and 255, "
                "or a dataset with the rule gt0 for masks of class indices."
            )
        union |= mask
    if sample.label == 0 and union.any():
        raise DataError(
            f"{sample.image} is labelled normal, but its mask {sample.masks[0]} marks {int(union.sum())} pixels; "
            "correct the label or the mask."
        )
    return union


def raw_mask(path: Path, rule: MaskRule) -> np.ndarray:
    """Return the values that a rule compares: [H, W], 0..255 as uint8 or 0..65535 for 16-bit files.

    The brightest channel counts and alpha never does. Of a palette image the indices count, except for gt127, which is
    about brightness and reads the palette's colours. Raises DataError, also for channels where `index_gt0` expects one.
    """
    image = open_image(path)
    if image.mode == "1" or (image.mode == "P" and rule == "gt127"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    if image.mode not in _PLAIN + _ALPHA:
        raise DataError(
            f"{path} has mode {image.mode}; expected a mask in grey, RGB, palette or 1-bit, maybe with alpha."
        )
    values = np.asarray(image)
    if image.mode in _ALPHA:
        values = values[:, :, :-1]
    if values.ndim == 3 and rule == "index_gt0" and values.shape[2] > 1:
        raise DataError(f"{path} has {values.shape[2]} channels; expected one channel of class indices.")
    return values if values.ndim == 2 else values.max(axis=2)


def foreground(values: np.ndarray, rule: MaskRule) -> np.ndarray:
    """Return which values [H, W] are foreground, as bool (docs/protocol.md#masks)."""
    if rule != "gt127":
        return values > 0
    return values > (127 if values.dtype == np.uint8 else 127 * 257)  # 257: from 8 to 16 bits


def resize_mask(mask: np.ndarray, size: int, rule: ResizeRule) -> np.ndarray:
    """Return a mask [H, W] bool at the evaluation size, [S, S] bool (docs/protocol.md#masks).

    bilinear_half: 255 x mask, PIL bilinear, value / 255 > 0.5. nearest: PIL nearest. musc_mvtec: the same bilinear
    values, only those equal to 255, which erodes the mask. musc_visa: those above 0, which dilates it.
    """
    image = Image.fromarray(mask.astype(np.uint8) * 255)
    if rule == "nearest":
        return np.asarray(image.resize((size, size), Image.Resampling.NEAREST)) > 0
    values = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))
    threshold = {"bilinear_half": 127, "musc_mvtec": 254, "musc_visa": 0}[rule]  # 127 / 255 < 0.5 < 128 / 255
    return values > threshold
