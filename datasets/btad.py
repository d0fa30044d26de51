"""BTAD in the official layout (mixed file types), anomalib's all-PNG copy or Bayes-PFL's rearranged one.

Layouts: docs/datasets/btad.md; Bayes-PFL's folder names: xiaozhen228/Bayes-PFL@8f155a0 dataset/datasets/BTAD.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import ClassVar

from zsadbench.data import layouts
from zsadbench.data.adapters import TreeDataset
from zsadbench.datasets import DatasetCard, Sample, register


@register
class BTAD(TreeDataset):
    """BTAD: 3 products; categories keep their official names whatever the copy calls them."""

    nested: ClassVar = ("BTech_Dataset_transformed", "BTAD", "btad")
    other_names: ClassVar = {"01": ("metal1",), "02": ("wood",), "03": ("metal2",)}  # Bayes-PFL's
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

    def scan_folder(self) -> Iterator[Sample]:
        """Yield the samples. Raises DataError where anomalib's conversion to PNG was cut short: images twice."""
        for _, group in groupby(super().scan_folder(), key=lambda sample: sample.image.parent):
            samples = list(group)
            layouts.by_stem(sample.image for sample in samples)
            yield from samples
