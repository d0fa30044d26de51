"""The embedded demo set: procedural pictures, drawn once into a cache folder in MVTec AD's layout.

Its numbers are for the tour and for regression checks; they say nothing about real inspection images. `demo.train` is
the disjoint family that the demo encoder and the demo checkpoints are trained on.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from zsadbench.data import layouts, procedural
from zsadbench.datasets import Dataset, DatasetCard, Sample, register
from zsadbench.errors import DataError
from zsadbench.support import cache


class Composition(NamedTuple):
    """Which pictures a variant holds, for each of its categories."""

    categories: tuple[str, ...]
    train: int  # normal reference pictures
    good: int  # normal test pictures
    per_defect: int  # test pictures of each defect
    first_seed: int  # frozen: other pictures would move every baseline


COMPOSITIONS = {
    "default": Composition(procedural.TEST_CATEGORIES, train=8, good=12, per_defect=3, first_seed=7_000_000),
    "train": Composition(procedural.TRAIN_CATEGORIES, train=0, good=16, per_defect=2, first_seed=8_000_000),
}


@register
class Demo(Dataset):
    """Four held-out procedural categories of 24 test images each."""

    cards: ClassVar = {
        "default": DatasetCard(
            title="Demo",
            domain="procedural",
            reference="zsadbench, procedural",
            source="drawn by zsadbench itself",
            licence="Apache-2.0",
            image_level=True,
            pixel_level=True,
            expected={"leather": (12, 12), "wood": (12, 12), "pill": (12, 12), "gear": (12, 12)},
            expected_train={"leather": 8, "wood": 8, "pill": 8, "gear": 8},
            notes="Demo numbers mean nothing outside the tour and regression checks.",
        ),
        "train": DatasetCard(
            title="Demo (training family)",
            domain="procedural",
            reference="zsadbench, procedural",
            source="drawn by zsadbench itself",
            licence="Apache-2.0",
            image_level=True,
            pixel_level=True,
            notes="Disjoint from the demo set; the demo encoder has seen these categories.",
        ),
    }

    @classmethod
    def locate(cls, data_root: Path | None, variant: str, stem: str) -> Path:
        """Return the cache folder of the variant, drawing its pictures first if they are not there."""
        folder = cache.folder() / f"demo-{variant}-v{procedural.VERSION}"
        if not folder.is_dir():
            draw(folder, COMPOSITIONS[variant])
        return folder

    def scan(self) -> Iterator[Sample]:
        """Yield the samples of every category folder."""
        for folder in layouts.folders_in(self.root):
            yield from layouts.mvtec_tree(folder, folder.name)


def draw(folder: Path, composition: Composition) -> None:
    """Write all pictures of a composition; the folder appears whole or not at all. Raises DataError."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".demo-") as drawing:
            for category in composition.categories:
                _draw_category(Path(drawing) / category, category, composition)
            if not folder.is_dir():  # another process may have been quicker
                shutil.copytree(drawing, folder.with_suffix(f".{os.getpid()}"))
                folder.with_suffix(f".{os.getpid()}").replace(folder)
    except OSError as error:
        raise DataError(
            f"the demo images could not be written to {folder}: {error.strerror or error}. "
            f"Set {cache.VARIABLE} to a folder that can be written."
        ) from error


def _draw_category(folder: Path, category: str, composition: Composition) -> None:
    seed = composition.first_seed
    for split, count in (("train/good", composition.train), ("test/good", composition.good)):
        for i in range(count):
            _save(folder / split / f"{i:03}.png", procedural.render(category, seed).image)
            seed += 1
    for defect in procedural.defects(category):
        for i in range(composition.per_defect):
            picture = procedural.render(category, seed, defect)
            _save(folder / "test" / defect / f"{i:03}.png", picture.image)
            _save(folder / "ground_truth" / defect / f"{i:03}_mask.png", picture.mask.astype(np.uint8) * 255)
            seed += 1


def _save(path: Path, pixels: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
