"""ISIC 2016 task 1, test part: skin lesions (docs/datasets/isic.md)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from zsadbench.data import layouts
from zsadbench.data.adapters import PairedDataset
from zsadbench.datasets import DatasetCard, Sample, register

_MASKS = "ISBI2016_ISIC_Part1_Test_GroundTruth"


@register
class ISIC(PairedDataset):
    """ISIC 2016: the official folders, or AnomalyCLIP's, which has the images in `skin/test/NAME`."""

    pairs: ClassVar = (("ISBI2016_ISIC_Part1_Test_Data", "ISBI2016_ISIC_Part1_Test_GroundTruth"),)
    nested: ClassVar = ("ISBI", "skin", "ISBI/skin", "ISIC", "isic", "ISIC/isic")
    cards: ClassVar = {
        "default": DatasetCard(
            title="ISIC 2016",
            domain="medical",
            reference="Gutman et al., ISBI 2016 challenge",
            source="challenge.isic-archive.com/data, year 2016, task 1, test data and ground truth",
            licence="CC0",
            image_level=False,
            pixel_level=True,
            mask_rule="gt127",
            folders=("ISIC", "ISBI", "ISIC2016"),
            nouns={"skin": "skin"},
            expected={"skin": (0, 379)},
            downloads=(  # two public loaders agree on the checksums
                (
                    "https://isic-challenge-data.s3.amazonaws.com/2016/ISBI2016_ISIC_Part1_Test_Data.zip",
                    "md5:efebcaeaae751007401a40a60d391f93",
                    0,
                ),
                (
                    "https://isic-challenge-data.s3.amazonaws.com/2016/ISBI2016_ISIC_Part1_Test_GroundTruth.zip",
                    "md5:492a7711a2e19b96114cab6c96bd1ad5",
                    0,
                ),
            ),
            notes="Every image has a lesion, which may cover most of the frame. ISIC 2017 and 2018 are other images.",
        ),
    }

    def is_top(self, top: Path) -> bool:
        """Accept AnomalyCLIP's folder too."""
        return super().is_top(top) or ((top / "test").is_dir() and (top / _MASKS).is_dir())

    def scan_folder(self) -> Iterator[Sample]:
        """Yield every image; in AnomalyCLIP's copy all folders in `test` share one folder of masks."""
        if not ((self.root / "test").is_dir() and (self.root / _MASKS).is_dir()):
            yield from super().scan_folder()
            return
        images = [image for folder in layouts.folders_in(self.root / "test") for image in layouts.images_in(folder)]
        for image, mask in layouts.pair_masks(images, layouts.images_in(self.root / _MASKS)).items():
            yield Sample(image, mask, 1, "skin")
