"""DAGM 2007: the official test part, AdaCLIP's balanced copy, or Bayes-PFL's 7 re-annotated classes.

Layouts: docs/datasets/dagm.md. `Labels.txt` has the labels; normal images have no mask file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

from zsadbench.data import layouts
from zsadbench.data.adapters import TreeDataset
from zsadbench.datasets import DatasetCard, Sample, register
from zsadbench.errors import DataError


@register
class DAGM(TreeDataset):
    """DAGM: artificial grey textures; a mask is one ellipse, much larger than the defect."""

    nested: ClassVar = (
        "DAGM_KaggleUpload", "dagm_kaggleupload/DAGM_KaggleUpload", "DAGM_anomaly_detection", "DAGM"
    )  # fmt: skip
    cards: ClassVar = {
        "default": DatasetCard(
            title="DAGM",
            domain="industrial",
            reference="Wieler and Hahn, DAGM 2007",
            source="Kaggle mhskjelvareid/dagm-2007-competition-dataset-optical-inspection; Zenodo 12750201",
            licence="unclear: not verified",
            image_level=True,
            pixel_level=True,
            mask_rule="gt127",
            folders=("DAGM_KaggleUpload", "dagm_kaggleupload", "DAGM"),
            nouns={
                "Class1": "textured surface",
                "Class2": "textured surface",
                "Class3": "textured surface",
                "Class4": "textured surface",
                "Class5": "textured surface",
                "Class6": "textured surface",
                "Class7": "textured surface",
                "Class8": "textured surface",
                "Class9": "textured surface",
                "Class10": "textured surface",
            },
            expected={
                "Class1": (504, 71),
                "Class2": (491, 84),
                "Class3": (491, 84),
                "Class4": (507, 68),
                "Class5": (495, 80),
                "Class6": (508, 67),
                "Class7": (1000, 150),
                "Class8": (1000, 150),
                "Class9": (1000, 150),
                "Class10": (1000, 150),
            },
            expected_train={
                "Class1": 496,
                "Class2": 509,
                "Class3": 509,
                "Class4": 493,
                "Class5": 505,
                "Class6": 492,
                "Class7": 1000,
                "Class8": 1000,
                "Class9": 1000,
                "Class10": 1000,
            },
            notes="The official test part, as AnomalyCLIP uses it. Pixel metrics of the three DAGM variants do not "
            "compare.",
        ),
        "adaclip": DatasetCard(
            title="DAGM (AdaCLIP)",
            domain="industrial",
            reference="Wieler and Hahn, DAGM 2007; copy of Cao et al., ECCV 2024",
            source="made by AdaCLIP's dagm-pre.py from the Kaggle copy",
            licence="unclear: not verified",
            image_level=True,
            pixel_level=True,
            mask_rule="gt127",
            folders=("DAGM_anomaly_detection",),
            nouns={
                "Class1": "textured surface",
                "Class2": "textured surface",
                "Class3": "textured surface",
                "Class4": "textured surface",
                "Class5": "textured surface",
                "Class6": "textured surface",
                "Class7": "textured surface",
                "Class8": "textured surface",
                "Class9": "textured surface",
                "Class10": "textured surface",
            },
            expected={
                "Class1": (150, 150),
                "Class2": (150, 150),
                "Class3": (150, 150),
                "Class4": (150, 150),
                "Class5": (150, 150),
                "Class6": (150, 150),
                "Class7": (300, 300),
                "Class8": (300, 300),
                "Class9": (300, 300),
                "Class10": (300, 300),
            },
            notes="All defects of train and test; which normal images depends on the order of files on a disk. The "
            "counts are inferred from the script.",
        ),
        "bayespfl": DatasetCard(
            title="DAGM (Bayes-PFL)",
            domain="industrial",
            reference="Wieler and Hahn, DAGM 2007; annotation of Qu et al., CVPR 2025",
            source="github.com/xiaozhen228/Bayes-PFL, DATA_three.zip of its README",
            licence="unclear: not verified",
            image_level=True,
            pixel_level=True,
            mask_rule="gt127",
            folders=("DAGM",),
            expected={
                "Fabric1": (150, 150),
                "Fabric2": (150, 150),
                "Fabric3": (150, 150),
                "Fabric4": (150, 150),
                "Fabric5": (150, 150),
                "Fabric7": (300, 300),
                "Fabric8": (300, 300),
            },
            notes="Seven classes, masks drawn anew by hand instead of ellipses: pixel metrics do not compare with "
            "`dagm`.",
        ),
    }

    def find_folder(self, root: Path) -> Path:
        """Accept a folder with an official class folder, or with a rearranged one."""
        if self.variant != "default":
            return super().find_folder(root)
        return layouts.find_top(
            root,
            self.nested,
            lambda top: any((top / name / "Test" / "Label" / "Labels.txt").is_file() for name in self.card.expected),
            "class folders such as Class1/Test with Label/Labels.txt",
        )

    def scan_folder(self) -> Iterator[Sample]:
        """Yield the test images and the normal train images of the classes that are there."""
        if self.variant != "default":
            yield from super().scan_folder()
            return
        for category in self.card.expected:
            if (self.root / category / "Test").is_dir():
                yield from _labelled(self.root / category / "Test", category, "test")
            if (self.root / category / "Train").is_dir():
                yield from (s for s in _labelled(self.root / category / "Train", category, "train") if s.label == 0)


class _Line(NamedTuple):
    image: str
    mask: str  # "" for a normal image


def _labelled(folder: Path, category: str, split: Literal["train", "test"]) -> Iterator[Sample]:
    """Yield the images of `Test` or `Train`. Raises DataError for files that are not listed, or not there."""
    table = folder / "Label" / "Labels.txt"
    lines = _read_labels(table)
    images = {path.name: path for path in layouts.images_in(folder)}
    masks = {"": None, **{path.name: path for path in layouts.images_in(folder / "Label")}}  # "": a normal image's
    listed = {"", *(name for line in lines for name in line)}
    stray = min((images.keys() | masks.keys()) - listed, default=None)
    if stray is not None:
        raise DataError(f"{stray} of {folder} is not listed in {table}; expected a line for each image and each mask.")
    for line in lines:
        missing = [name for name, there in ((line.image, images), (line.mask, masks)) if name not in there]
        if missing:
            raise DataError(f"{table} lists {missing[0][:200]}, which is not there; the copy is incomplete.")
        yield Sample(images[line.image], masks[line.mask], 1 if line.mask else 0, category, split=split)


def _read_labels(path: Path) -> list[_Line]:
    """Read `Labels.txt`: after the first line, tab-separated index, flag, image, 0, and mask or 0."""
    try:
        rows = path.read_text(encoding="utf-8").splitlines()[1:]
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read: {error}. It has the labels; expected one in every Label folder."
        ) from None
    lines: dict[str, _Line] = {}
    for number, row in enumerate(rows, start=2):
        values = row.split()
        if not values:
            continue
        if len(values) != 5 or values[1] not in ("0", "1") or (values[1] == "0") != (values[4] == "0"):
            raise DataError(f"{path}, line {number}: got {row!r}; expected index, 0 or 1, image, 0, and mask or 0.")
        if values[2] in lines:
            raise DataError(f"{path}, line {number}: {values[2]} is listed again; expected each image once.")
        lines[values[2]] = _Line(values[2], "" if values[4] == "0" else values[4])
    return list(lines.values())
