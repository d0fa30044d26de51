"""EndoTect 2020, segmentation test part: 200 frames with polyps (docs/datasets/polyps.md)."""

from __future__ import annotations

from typing import ClassVar

from zsadbench.data.adapters import PairedDataset
from zsadbench.datasets import DatasetCard, register


@register
class Endo(PairedDataset):
    """EndoTect: polyps; folders beside `images` and `masks` (bounding boxes) are not images of the set."""

    pairs: ClassVar = (("images", "masks"),)
    nested: ClassVar = ("EndoTect_2020_Segmentation_Test_Dataset", "EndoTect", "endo", "EndoTect/endo")
    cards: ClassVar = {
        "default": DatasetCard(
            title="Endo",
            domain="medical",
            reference="Hicks et al., EndoTect 2020 challenge, ICPR 2020",
            source="endotect.com; a link in the README of github.com/zqhang/AnomalyCLIP",
            licence="unclear: not verified",
            image_level=False,
            pixel_level=True,
            mask_rule="gt127",
            folders=("EndoTect_2020_Segmentation_Test_Dataset", "EndoTect"),
            expected={"colon": (0, 200)},
            notes="Every image has a polyp. AnomalyCLIP's 'Endo' for prompt tuning is another set (AnomalyCLIP#41). "
            "Unverified: the file type of the masks.",
        ),
    }
