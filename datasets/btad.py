"""BTAD in the official layout (mixed file types), anomalib's all-PNG copy or Bayes-PFL's rearranged one.

Layouts: specs/datasets.md §4; Bayes-PFL's folder names: xiaozhen228/Bayes-PFL@8f155a0 dataset/datasets/BTAD.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from zsadbench import layouts
from zsadbench.datasets import Dataset, DatasetCard, Sample, register

_FOLDERS = {"01": ("01", "metal1"), "02": ("02", "wood"), "03": ("03", "metal2")}  # official name, Bayes-PFL's


@register
class BTAD(Dataset):
    """BTAD: 3 products; categories keep their official names whatever the copy calls them."""

    cards: ClassVar = {
        "default": DatasetCard(
            title="BTAD",
            domain="industrial",
            reference="Mishra et al., ISIE 2021",
            source="avires.dimi.uniud.it/papers/btad (btad.zip)",
            licence="unclear: no text at the source; anomalib says CC BY-NC-SA 4.0",
            image_level=True,
            pixel_level=True,
            mask_rule="gt127",
            folders=("BTAD", "BTech_Dataset_transformed", "BTech"),
            nouns={"01": "metal part", "02": "wood", "03": "metal part"},
            expected={"01": (21, 49), "02": (30, 200), "03": (400, 41)},
            expected_train={"01": 400, "02": 399, "03": 1000},
            notes="Papers say 2,830 images: 2,540 images and 290 masks.",
        ),
    }

    def find_top(self, root: Path) -> Path:
        """Accept a folder with at least one product folder that has a test split."""
        return layouts.find_top(
            root,
            ("BTech_Dataset_transformed", "BTAD", "btad"),
            lambda top: any((top / name / "test").is_dir() for names in _FOLDERS.values() for name in names),
            "product folders such as 01/test or metal1/test",
        )

    def scan(self) -> Iterator[Sample]:
        """Yield the samples of the products that are there."""
        for category, names in _FOLDERS.items():
            folder = next((self.root / name for name in names if (self.root / name).is_dir()), None)
            if folder is not None:
                yield from layouts.mvtec_tree(folder, category)
