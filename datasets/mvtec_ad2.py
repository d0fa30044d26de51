"""MVTec AD 2, official layout, public test part (docs/datasets/mvtec.md)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from zsadbench.data import layouts
from zsadbench.data.adapters import IndexedDataset
from zsadbench.datasets import DatasetCard, Sample, register

_CATEGORIES = ("can", "fabric", "fruit_jelly", "rice", "sheet_metal", "vial", "wallplugs", "walnuts")


@register
class MVTecAD2(IndexedDataset):
    """MVTec AD 2: 8 categories; the labels of the private test parts are not public."""

    cards: ClassVar = {
        "default": DatasetCard(
            title="MVTec AD 2",
            domain="industrial",
            reference="Heckler-Kram et al., 2025",
            source="mvtec.com, page 'MVTec AD 2' (a form)",
            licence="CC BY-NC-SA 4.0",
            image_level=True,
            pixel_level=True,
            mask_rule="gt127",
            folders=("mvtec_ad_2", "MVTecAD2"),
            notes="Only test_public: test_private and test_private_mixed are scored by a server. Unverified: the "
            "counts.",
        ),
    }

    def find_folder(self, root: Path) -> Path:
        """Accept a folder with at least one category folder that has a public test part."""
        return layouts.find_top(
            root,
            ("mvtec_ad_2", "mvtec_ad2"),
            lambda top: any((top / category / "test_public").is_dir() for category in _CATEGORIES),
            "category folders such as can/test_public",
        )

    def scan_folder(self) -> Iterator[Sample]:
        """Yield the samples of the categories that are there."""
        for category in _CATEGORIES:
            test = self.root / category / "test_public"
            yield from layouts.normal_samples(self.root / category / "train" / "good", category, "train")
            yield from layouts.normal_samples(test / "good", category, "test")
            yield from layouts.anomalous_samples(test / "bad", test / "ground_truth" / "bad", category)
