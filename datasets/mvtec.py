"""MVTec AD in the official layout or rearranged by Bayes-PFL; categories that are not there are left out.

Layouts: docs/datasets/mvtec.md, and xiaozhen228/Bayes-PFL@8f155a0 (its copies name images `mvtec_DEFECT_NNNNNN.bmp` in
`test/anomaly`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

from zsadbench.data.adapters import TreeDataset
from zsadbench.datasets import DatasetCard, Sample, register

_BAYES_PFL_NAME = re.compile(r"mvtec_(?P<defect>\w+)_\d{6}")


@register
class MVTec(TreeDataset):
    """MVTec AD: 15 categories, test split with masks."""

    nested: ClassVar = ("mvtec_anomaly_detection", "mvtec", "mvtec_ad", "MVTec")
    cards: ClassVar = {
        "default": DatasetCard(
            title="MVTec AD",
            domain="industrial",
            reference="Bergmann et al., CVPR 2019 and IJCV 2021",
            source="mvtec.com, page 'MVTec Anomaly Detection Dataset' (a form)",
            licence="CC BY-NC-SA 4.0",
            image_level=True,
            pixel_level=True,
            mask_rule="gt127",
            folders=("mvtec_anomaly_detection", "mvtec_ad", "MVTec", "MVTecAD", "mvdataset"),
            expected={
                "bottle": (20, 63),
                "cable": (58, 92),
                "capsule": (23, 109),
                "carpet": (28, 89),
                "grid": (21, 57),
                "hazelnut": (40, 70),
                "leather": (32, 92),
                "metal_nut": (22, 93),
                "pill": (26, 141),
                "screw": (41, 119),
                "tile": (33, 84),
                "toothbrush": (12, 30),
                "transistor": (60, 40),
                "wood": (19, 60),
                "zipper": (32, 119),
            },
            expected_train={
                "bottle": 209,
                "cable": 224,
                "capsule": 219,
                "carpet": 280,
                "grid": 264,
                "hazelnut": 391,
                "leather": 245,
                "metal_nut": 220,
                "pill": 267,
                "screw": 320,
                "tile": 230,
                "toothbrush": 60,
                "transistor": 213,
                "wood": 247,
                "zipper": 240,
            },
            notes="Some redistributed copies hold images of other categories (MMAD#15).",
        ),
    }

    def scan(self) -> Iterator[Sample]:
        """Yield the samples; in Bayes-PFL's copy the defect stands in the file name."""
        for sample in super().scan():
            named = _BAYES_PFL_NAME.fullmatch(sample.image.stem)
            yield replace(sample, defect=named["defect"]) if named and sample.label == 1 else sample
