"""KolektorSDD2: the official flat folders, or Bayes-PFL's crops (docs/datasets/kolektor.md). KolektorSDD is `ksdd`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from zsadbench.data import layouts
from zsadbench.data.adapters import TreeDataset, labelled_by_mask
from zsadbench.datasets import DatasetCard, Sample, register
from zsadbench.errors import DataError


@register
class KSDD2(TreeDataset):
    """KolektorSDD2: every image has a mask beside it, and only the mask tells whether it is defective."""

    nested: ClassVar = ("KolektorSDD2", "KSDD2")
    cards: ClassVar = {
        "default": DatasetCard(
            title="KSDD2",
            domain="industrial",
            reference="Bozic et al., Computers in Industry 2021",
            source="vicos.si/resources/kolektorsdd2",
            licence="CC BY-NC-SA 4.0",
            image_level=True,
            pixel_level=True,
            mask_rule="gt0",
            folders=("KolektorSDD2", "KSDD2"),
            nouns={"ksdd2": "metal surface"},
            expected={"ksdd2": (894, 110)},
            expected_train={"ksdd2": 2085},
            downloads=(  # two public loaders agree on the checksum (docs/datasets/kolektor.md)
                ("https://go.vicos.si/kolektorsdd2", "md5:1ed0f628122776ace4965afa30dfe316", 0),
            ),
            notes="The Dual-Anchor supplementary cites this set under 'KSDD2', but its text describes KSDD (399 "
            "images, 52 defective): do not compare. Labels are read from the full-size masks; the smallest "
            "defect has 23 pixels. The noun follows Bayes-PFL's 'Metal'; the paper only says production items.",
        ),
        "bayespfl": DatasetCard(
            title="KSDD2 (Bayes-PFL)",
            domain="industrial",
            reference="Bozic et al., Computers in Industry 2021; crops by Qu et al., CVPR 2025",
            source="github.com/xiaozhen228/Bayes-PFL, DATA_three.zip of its README",
            licence="CC BY-NC-SA 4.0",
            image_level=True,
            pixel_level=True,
            mask_rule="gt0",
            folders=("KSDD2",),
            nouns={"Metal": "metal surface"},
            expected={"Metal": (356, 356)},
            notes="All defects of train and test with the first 356 normal images, cropped at random: it cannot be "
            "made again (Bayes-PFL#16). Dual-Anchor's 'KSDD2' may be this set or KSDD: its supplementary mixes "
            "the descriptions.",
        ),
    }

    def find_folder(self, root: Path) -> Path:
        """Accept a folder with the flat test folder, or with Bayes-PFL's tree. Refuses Dataset Ninja's copies."""
        if self.variant == "bayespfl":
            return super().find_folder(root)
        if (root / "test" / "img").is_dir():
            raise DataError(
                f"{root} is Dataset Ninja's copy (img, ann); expected the official archive, KolektorSDD2.zip."
            )
        return layouts.find_top(
            root,
            self.nested,
            lambda top: bool(layouts.images_in(top / "test")),
            "test/20000.png beside test/20000_GT.png",
        )

    def scan_folder(self) -> Iterator[Sample]:
        """Yield the test images, and the normal ones of train."""
        if self.variant == "bayespfl":
            yield from super().scan_folder()
            return
        for image, mask in layouts.pairs_in(self.root / "test", "_GT").items():
            yield labelled_by_mask(image, mask, "ksdd2", self.card.mask_rule)
        for image, mask in layouts.pairs_in(self.root / "train", "_GT").items():
            sample = labelled_by_mask(image, mask, "ksdd2", self.card.mask_rule)
            if sample.label == 0:
                yield replace(sample, split="train")
