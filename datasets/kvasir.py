"""Kvasir-SEG: 1000 frames with polyps (docs/datasets/polyps.md)."""

from __future__ import annotations

from typing import ClassVar

from zsadbench.data.adapters import PairedDataset
from zsadbench.datasets import DatasetCard, register


@register
class Kvasir(PairedDataset):
    """Kvasir-SEG: polyps; masks are JPEG in the official archive, so that their noise must not count."""

    pairs: ClassVar = (("images", "masks"),)
    nested: ClassVar = ("Kvasir-SEG", "Kvasir", "kvasir")
    cards: ClassVar = {
        "default": DatasetCard(
            title="Kvasir-SEG",
            domain="medical",
            reference="Jha et al., MMM 2020",
            source="datasets.simula.no/kvasir-seg",
            licence="unclear: research and education, not verified",
            image_level=False,
            pixel_level=True,
            mask_rule="gt127",
            folders=("Kvasir-SEG", "Kvasir"),
            expected={"colon": (0, 1000)},
            notes="Every image has a polyp. Counting mask values above 0 would enlarge polyps by 1 to 5 %. EndoTect "
            "was trained on these images. PraNet's TestDataset has 100 of them.",
        ),
    }
