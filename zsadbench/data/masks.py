"""Masks: file -> foreground at native size -> foreground at the evaluation size. Two steps, each with its own rule."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from zsadbench.data.images import open_image
from zsadbench.datasets import MaskRule, Sample
from zsadbench.errors import DataError
from zsadbench.protocol import ResizeRule

_EXIF = "turned by it, the sizes would agree. Save the image turned, or draw all masks as the images are stored."
_ALPHA = ("LA", "RGBA")
_PLAIN = ("L", "RGB", "P", "I;16", "I;16B", "I")


class MaskFile(NamedTuple):
    """What opening a mask file once tells."""

    path: Path
    values: np.ndarray  # [H, W], those that a rule compares, 0..255 as uint8 or 0..65535 for 16-bit files
    format: str  # of the content, such as "PNG"
    hidden: bool  # one colour everywhere, but an alpha channel that varies: the mask may lie there, where none reads it


def read_mask(sample: Sample, rule: MaskRule, image_size: tuple[int, int]) -> np.ndarray:
    """Return the foreground of a sample, [H, W] bool at native size; several masks are united.

    `image_size` is (H, W) of the whole image, of which the sample may be a part. Raises as `unite` and `mask_file`.
    """
    return unite(sample, [mask_file(path, rule) for path in sample.masks], rule, image_size)


def unite(
    sample: Sample, files: Sequence[MaskFile], rule: MaskRule, image_size: tuple[int, int], orientation: int = 1
) -> np.ndarray:
    """Return the foreground of a sample, whose mask files are read, as `read_mask` does.

    A normal image without a mask file is all background. `orientation` is what EXIF tells of the image. Raises
    DataError for an anomalous image without a mask, a mask of another size, a normal image whose mask marks something,
    or a mask that is too dark for its rule (VisA's class indices under gt127: the commonest complaint,
    docs/datasets/index.md#complaints).
    """
    if not files and sample.label == 1:
        raise DataError(f"{sample.image} is anomalous, but has no mask; expected one, as for the rest of its dataset.")
    union = sample.cut(np.zeros(image_size, bool))
    for file in files:
        if file.values.shape != image_size:
            turned = file.values.shape == image_size[::-1] and orientation >= 5
            exif = f" The image has the EXIF orientation {orientation}: {_EXIF}" if turned else ""
            raise DataError(
                f"{file.path} is {file.values.shape[0]} pixels high and {file.values.shape[1]} wide, but its image "
                f"{sample.image} is {image_size[0]} high and {image_size[1]} wide; expected equal sizes.{exif}"
            )
        values = sample.cut(file.values)
        mask = foreground(values, rule)
        if sample.label == 1 and values.any() and not mask.any():
            raise DataError(
                f"{file.path} has values up to {values.max()}, all background under the rule {rule}; expected 0 and "
                "255. For masks of 0 and 1 or of class indices use the rule gt0 (own images: folder.gt0=PATH)."
            )
        union |= mask
    if sample.label == 0 and union.any():
        raise DataError(
            f"{sample.image} is labelled normal, but its mask {sample.masks[0]} marks {int(union.sum())} pixels; "
            "correct the label or the mask."
        )
    return union


def raw_mask(path: Path, rule: MaskRule) -> np.ndarray:
    """Return the values that a rule compares, see `MaskFile.values`. Raises as `mask_file`."""
    return mask_file(path, rule).values


def mask_file(path: Path, rule: MaskRule, *, huge: bool = False) -> MaskFile:
    """Read a mask file.

    The brightest channel counts and alpha never does. Of a palette image the indices count, except for gt127, which is
    about brightness and reads the palette's colours. With `huge` PIL's limit of pixels does not hold. Raises DataError,
    also for channels where `index_gt0` expects one.
    """
    image = open_image(path, huge=huge)
    content = image.format or ""
    if image.mode == "1" or (image.mode == "P" and rule == "gt127"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    if image.mode not in _PLAIN + _ALPHA:
        raise DataError(
            f"{path} has mode {image.mode}; expected a mask in grey, RGB, palette or 1-bit, maybe with alpha."
        )
    values, hidden = np.asarray(image), False
    if image.mode in _ALPHA:
        alpha, values = values[:, :, -1], values[:, :, :-1]
        hidden = bool((values == values[0, 0]).all() and (alpha != alpha[0, 0]).any())
    if values.ndim == 3 and rule == "index_gt0" and values.shape[2] > 1:
        raise DataError(f"{path} has {values.shape[2]} channels; expected one channel of class indices.")
    return MaskFile(path, values if values.ndim == 2 else values.max(axis=2), content, hidden)


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


class Lost(NamedTuple):
    """How many defect regions of a native mask have no pixel of their own left at the evaluation size."""

    lost: int
    regions: int  # 8-connected, at native size


def lost_regions(native: np.ndarray, resized: np.ndarray) -> Lost:
    """Compare a mask [H, W] bool with itself at another size [S, S] bool: a region is lost if no pixel of it is on."""
    if not native.any():
        return Lost(0, 0)
    x, y, width, height = cv2.boundingRect(native.view(np.uint8))
    window = np.ascontiguousarray(native[y : y + height, x : x + width])
    number, labels = cv2.connectedComponents(window.view(np.uint8), connectivity=8)
    rows, columns = np.nonzero(window)
    there = resized[
        (rows + y) * resized.shape[0] // native.shape[0], (columns + x) * resized.shape[1] // native.shape[1]
    ]
    left = np.unique(labels[rows[there], columns[there]]).size
    return Lost(number - 1 - left, number - 1)
