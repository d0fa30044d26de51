"""Synthetic pictures of realistic size on disk, for measuring speed where no real ones are at hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

SIZE = 1500, 1000  # width and height in pixels, about those of VisA (docs/datasets/visa.md)
CATEGORY = "part"
DISTINCT = 16  # pictures that are drawn; the others are copies, because decoding does not know


def write_folder(
    root: Path, images: int, *, category: str = CATEGORY, size: tuple[int, int] = SIZE, suffix: str = ".jpg"
) -> Path:
    """Write a test split in MVTec AD's layout, half of its images anomalous with masks, and return `root`.

    size: width and height in pixels; suffix: the files' format, e.g. ".jpg" or ".png".
    """
    rng = np.random.default_rng(0)
    drawn: dict[tuple[str, int], bytes] = {}
    for i in range(images):
        defect, number = ("good", "spot")[i % 2], i // 2
        path = root / category / "test" / defect / f"{number:04}{suffix}"
        mask = root / category / "ground_truth" / defect / f"{number:04}_mask.png"
        key = defect, number % (DISTINCT // 2)
        if key not in drawn:
            _draw(rng, size, defect == "spot", path, mask)
            drawn[key] = path.read_bytes()
            continue
        path.write_bytes(drawn[key])
        if defect == "spot":
            mask.write_bytes((mask.parent / f"{key[1]:04}_mask.png").read_bytes())
    return root


def _draw(rng: np.random.Generator, size: tuple[int, int], anomalous: bool, path: Path, mask: Path) -> None:
    """Write one picture: smooth colours with sensor noise, and for anomalous ones a darker square and its mask."""
    coarse = Image.fromarray(rng.integers(40, 216, (12, 18, 3), dtype=np.uint8))
    pixels = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC)).astype(np.int16)
    pixels = pixels + rng.integers(-6, 7, pixels.shape, dtype=np.int16)
    if anomalous:
        side = size[1] // 5
        row, column = (int(rng.integers(0, length - side)) for length in (size[1], size[0]))
        square = np.zeros((size[1], size[0]), np.uint8)
        square[row : row + side, column : column + side] = 255
        pixels[square > 0] -= 40
        _save(mask, square)
    _save(path, pixels.clip(0, 255).astype(np.uint8))


def _save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
