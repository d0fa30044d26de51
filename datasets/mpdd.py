"""MPDD, in the official layout, which is MVTec AD's (docs/datasets/mpdd.md)."""

from __future__ import annotations

from typing import ClassVar

from zsadbench.data.adapters import TreeDataset
from zsadbench.datasets import DatasetCard, register


@register
class MPDD(TreeDataset):
    """MPDD: painted metal parts, 6 categories."""

    nested: ClassVar = ("MPDD", "mpdd")
    cards: ClassVar = {
        "default": DatasetCard(
            title="MPDD",
            domain="industrial",
            reference="Jezek et al., ICUMT 2021",
            source="github.com/stepanje/MPDD, link in the README",
            licence="CC BY-NC-SA 4.0",
            image_level=True,
            pixel_level=True,
            mask_rule="gt127",
            folders=("MPDD",),
            expected={
                "bracket_black": (32, 47),
                "bracket_brown": (26, 51),
                "bracket_white": (30, 30),
                "connector": (30, 14),
                "metal_plate": (26, 71),
                "tubes": (32, 69),
            },
            notes="Downloads with missing categories are common (AnomalyCLIP#5). Unverified: 888 train images.",
        ),
    }
