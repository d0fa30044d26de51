"""TN3K, test part: 614 ultrasound images with thyroid nodules (docs/datasets/tn3k.md)."""

from __future__ import annotations

from typing import ClassVar

from zsadbench.data.adapters import PairedDataset
from zsadbench.datasets import DatasetCard, register


@register
class TN3K(PairedDataset):
    """TN3K: nodules; the csv files tell benign from malignant, which is not the anomaly label."""

    pairs: ClassVar = (("test-image", "test-mask"),)
    nested: ClassVar = ("tn3k", "Thyroid Dataset/tn3k", "TN3K", "TN3K/tn3k")
    cards: ClassVar = {
        "default": DatasetCard(
            title="TN3K",
            domain="medical",
            reference="Gong et al., ISBI 2021",
            source="github.com/haifangong/TRFE-Net, link in the README",
            licence="MIT, says the card of one copy",
            image_level=False,
            pixel_level=True,
            mask_rule="gt127",
            folders=("TN3K", "Thyroid Dataset"),
            expected={"thyroid": (0, 614)},
            notes="Every image has a nodule, benign or malignant. Masks are JPEG in the official archive.",
        ),
    }
