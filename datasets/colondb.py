"""CVC-ColonDB: 380 frames with polyps, in the copies that still exist (docs/datasets/polyps.md)."""

from __future__ import annotations

from typing import ClassVar

from zsadbench.data.adapters import PairedDataset
from zsadbench.datasets import DatasetCard, register


@register
class ColonDB(PairedDataset):
    """CVC-ColonDB: polyps; the copies of figshare and PraNet, or AdaCLIP's."""

    pairs: ClassVar = (("images", "masks"),)
    nested: ClassVar = ("CVC-ColonDB", "TestDataset/CVC-ColonDB", "ColonDB", "CVC-ColonDB/ColonDB")
    cards: ClassVar = {
        "default": DatasetCard(
            title="CVC-ColonDB",
            domain="medical",
            reference="Bernal et al., Pattern Recognition 2012; Tajbakhsh et al., IEEE TMI 2016",
            source="figshare 21221579, Polyp_DataSet.zip (the original page is dead)",
            licence="unclear: research use",
            image_level=False,
            pixel_level=True,
            mask_rule="gt127",
            folders=("CVC-ColonDB", "ColonDB"),
            expected={"colon": (0, 380)},
            notes="Every image has a polyp. 'CVC-300' of PraNet is another set of 60 images. Unverified: the mode of "
            "the masks.",
        ),
    }
