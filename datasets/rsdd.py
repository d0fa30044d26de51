"""RSDDs, rail surfaces: the raw images, or Bayes-PFL's crops (docs/datasets/rsdd.md)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from zsadbench.data import layouts
from zsadbench.data.adapters import TreeDataset
from zsadbench.datasets import DatasetCard, Sample, register

_TYPES = {"type1": "Type-I RSDDs dataset", "type2": "Type-II RSDDs dataset"}


@register
class RSDD(TreeDataset):
    """RSDDs: two types of rail; image and mask have the same name and lie in folders beside each other."""

    nested: ClassVar = ("RSDDs dataset", "RSDD")
    cards: ClassVar = {
        "default": DatasetCard(
            title="RSDDs",
            domain="industrial",
            reference="Gan et al., IEEE TIM 2017",
            source="Beijing Jiaotong University, page 'RSDDs dataset'; also IEEE DataPort",
            licence="unclear: none found",
            image_level=False,
            pixel_level=True,
            mask_rule="gt127",
            folders=("RSDDs dataset", "RSDDs", "RSDDs_dataset"),
            nouns={"type1": "rail surface", "type2": "rail surface"},
            expected={"type1": (0, 67), "type2": (0, 128)},
            notes="Every image has a defect. Masks are JPEG: users threshold at 50, 155 or 200, we at 127. "
            "Unverified: the numbering of the files.",
        ),
        "bayespfl": DatasetCard(
            title="RSDD (Bayes-PFL)",
            domain="industrial",
            reference="Gan et al., IEEE TIM 2017; crops by Qu et al., CVPR 2025",
            source="github.com/xiaozhen228/Bayes-PFL, DATA_three.zip of its README",
            licence="unclear: none found",
            image_level=True,
            pixel_level=True,
            mask_rule="gt127",
            folders=("RSDD",),
            nouns={"Metal15": "rail surface"},
            expected={"Metal15": (387, 387)},
            notes="Confounded: all normal crops are Type-I rails, 231 of the 387 anomalous ones Type-II, so image "
            "metrics can be won by telling the rail. The crops cannot be made again (Bayes-PFL#16).",
        ),
    }

    def find_folder(self, root: Path) -> Path:
        """Accept a folder with one of the two types, or with Bayes-PFL's tree."""
        if self.variant == "bayespfl":
            return super().find_folder(root)
        return layouts.find_top(
            root,
            self.nested,
            lambda top: any((top / name / "Rail surface images").is_dir() for name in _TYPES.values()),
            "'Type-I RSDDs dataset/Rail surface images'",
        )

    def scan_folder(self) -> Iterator[Sample]:
        """Yield the samples of the types that are there."""
        if self.variant == "bayespfl":
            yield from super().scan_folder()
            return
        for category, name in _TYPES.items():
            folder = self.root / name
            yield from layouts.anomalous_samples(folder / "Rail surface images", folder / "GroundTruth", category)
