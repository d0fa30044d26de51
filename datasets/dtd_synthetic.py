"""DTD-Synthetic in the official layout, which is MVTec AD's, or renamed by Bayes-PFL (docs/datasets/dtd_synthetic.md).

Bayes-PFL's names: xiaozhen228/Bayes-PFL@49ca9a9 dataset/datasets/DTD.py.
"""

from __future__ import annotations

from typing import ClassVar

from zsadbench.data.adapters import TreeDataset
from zsadbench.datasets import DatasetCard, register


@register
class DTDSynthetic(TreeDataset):
    """DTD-Synthetic: 12 textures; categories keep their official names whatever the copy calls them."""

    nested: ClassVar = ("DTD-Synthetic", "DTD", "dtd")
    other_names: ClassVar = {
        "Blotchy_099": ("blotchy",),
        "Fibrous_183": ("fibrous",),
        "Marbled_078": ("marbled2",),
        "Matted_069": ("matted1",),
        "Mesh_114": ("mesh",),
        "Perforated_037": ("perforated",),
        "Stratified_154": ("stratified",),
        "Woven_001": ("woven5",),
        "Woven_068": ("woven4",),
        "Woven_104": ("woven3",),
        "Woven_125": ("woven2",),
        "Woven_127": ("woven1",),
    }
    cards: ClassVar = {
        "default": DatasetCard(
            title="DTD-Synthetic",
            domain="industrial",
            reference="Aota et al., WACV 2023",
            source="the paper's repository, link to a Google Drive folder",
            licence="unclear: none found; its source, DTD, is said to be for research only",
            image_level=True,
            pixel_level=True,
            mask_rule="gt127",
            folders=("DTD-Synthetic", "DTD_Synthetic", "DTD"),
            nouns={
                "Blotchy_099": "blotchy texture",
                "Fibrous_183": "fibrous texture",
                "Marbled_078": "marbled texture",
                "Matted_069": "matted texture",
                "Mesh_114": "mesh",
                "Perforated_037": "perforated texture",
                "Stratified_154": "stratified texture",
                "Woven_001": "woven texture",
                "Woven_068": "woven texture",
                "Woven_104": "woven texture",
                "Woven_125": "woven texture",
                "Woven_127": "woven texture",
            },
            expected={
                "Blotchy_099": (20, 80),
                "Fibrous_183": (20, 80),
                "Marbled_078": (20, 80),
                "Matted_069": (20, 79),
                "Mesh_114": (36, 80),
                "Perforated_037": (20, 80),
                "Stratified_154": (20, 80),
                "Woven_001": (30, 70),
                "Woven_068": (51, 79),
                "Woven_104": (20, 80),
                "Woven_125": (20, 79),
                "Woven_127": (80, 80),
            },
            expected_train={
                "Blotchy_099": 100,
                "Fibrous_183": 100,
                "Marbled_078": 100,
                "Matted_069": 100,
                "Mesh_114": 100,
                "Perforated_037": 100,
                "Stratified_154": 100,
                "Woven_001": 100,
                "Woven_068": 100,
                "Woven_104": 100,
                "Woven_125": 100,
                "Woven_127": 100,
            },
            notes="Unverified: the values that masks have (users threshold at 0 and at 128) and the licence.",
        ),
    }
