"""CVC-ClinicDB: 612 frames with polyps, official, on Kaggle, or rearranged (docs/datasets/polyps.md)."""

from __future__ import annotations

from typing import ClassVar

from zsadbench.data.adapters import PairedDataset
from zsadbench.datasets import DatasetCard, register


@register
class ClinicDB(PairedDataset):
    """CVC-ClinicDB: polyps; the official TIFF files, Kaggle's PNG copies, figshare's or AdaCLIP's."""

    pairs: ClassVar = (("Original", "Ground Truth"), ("images", "masks"))
    nested: ClassVar = ("CVC-ClinicDB", "PNG", "TIF", "CVC-ClinicDB/PNG", "ClinicDB", "CVC-ClinicDB/ClinicDB")
    cards: ClassVar = {
        "default": DatasetCard(
            title="CVC-ClinicDB",
            domain="medical",
            reference="Bernal et al., Computerized Medical Imaging and Graphics 2015",
            source="polyp.grand-challenge.org/CVCClinicDB; Kaggle balraj98/cvcclinicdb",
            licence="unclear: research use",
            image_level=False,
            pixel_level=True,
            mask_rule="gt127",
            folders=("CVC-ClinicDB", "ClinicDB", "cvcclinicdb"),
            expected={"colon": (0, 612)},
            notes="Every image has a polyp; frames come from about 30 videos and resemble each other. PraNet's "
            "TestDataset has only 62 of them. Unverified: the mode of the masks, and Kaggle's folders.",
        ),
    }
