"""VisA, one-class protocol: the official tar with its split file, or copies that were rearranged into MVTec's tree.

Layouts: docs/datasets/visa.md; spot-diff's and anomalib's copies lie in `VisA_pytorch/1cls` and `visa_pytorch`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from zsadbench.data import index_files, layouts
from zsadbench.data.adapters import IndexedDataset
from zsadbench.datasets import DatasetCard, Sample, register

_SPLIT = Path("split_csv", "1cls.csv")


@register
class VisA(IndexedDataset):
    """VisA: 12 categories; masks hold class indices, so that anything above 0 is a defect."""

    cards: ClassVar = {
        "default": DatasetCard(
            title="VisA",
            domain="industrial",
            reference="Zou et al., ECCV 2022",
            source="github.com/amazon-science/spot-diff, section 'Data download'",
            licence="CC BY 4.0",
            image_level=True,
            pixel_level=True,
            mask_rule="gt0",
            folders=("VisA", "VisA_20220922", "VisA_pytorch", "visa_pytorch"),
            nouns={"chewinggum": "chewing gum"},
            expected={
                "candle": (100, 100),
                "capsules": (60, 100),
                "cashew": (50, 100),
                "chewinggum": (50, 100),
                "fryum": (50, 100),
                "macaroni1": (100, 100),
                "macaroni2": (100, 100),
                "pcb1": (100, 100),
                "pcb2": (100, 100),
                "pcb3": (101, 100),
                "pcb4": (101, 100),
                "pipe_fryum": (50, 100),
            },
            expected_train={
                "candle": 900,
                "capsules": 542,
                "cashew": 450,
                "chewinggum": 453,
                "fryum": 450,
                "macaroni1": 900,
                "macaroni2": 900,
                "pcb1": 904,
                "pcb2": 901,
                "pcb3": 905,
                "pcb4": 904,
                "pipe_fryum": 450,
            },
            downloads=(  # URL: spot-diff's README; checksum: anomalib, src/anomalib/data/datamodules/image/visa.py
                (
                    "https://amazon-visual-anomaly.s3.us-west-2.amazonaws.com/VisA_20220922.tar",
                    "sha256:2eb8690c803ab37de0324772964100169ec8ba1fa3f7e94291c9ca673f40f362",
                    1929840640,
                ),
            ),
            notes="Masks look black in a viewer: their values are 1 to 9.",
        ),
    }

    def find_folder(self, root: Path) -> Path:
        """Accept the official folder (with its split file) or one with category folders in MVTec's layout."""
        return layouts.find_top(
            root,
            ("VisA_20220922", "VisA", "visa", "VisA_pytorch/1cls", "1cls", "visa_pytorch"),
            lambda top: (top / _SPLIT).is_file() or any((top / name / "test").is_dir() for name in self.card.expected),
            f"{_SPLIT.as_posix()} beside candle/Data, or category folders such as candle/test",
        )

    def scan_folder(self) -> Iterator[Sample]:
        """Yield the samples of the categories that are there."""
        if not (self.root / _SPLIT).is_file():
            for category in self.card.expected:
                yield from layouts.mvtec_tree(self.root / category, category)
            return
        index = index_files.read_index(self.root / _SPLIT)
        present = {path.name for path in layouts.folders_in(self.root)}
        there = index._replace(rows=tuple(row for row in index.rows if row.category in present))
        yield from index_files.samples(there, self.root)
