"""HeadCT: 200 slices with and without haemorrhage, no masks: raw, or rearranged (docs/datasets/brain.md)."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

from zsadbench.data import layouts
from zsadbench.data.adapters import TreeDataset
from zsadbench.datasets import DatasetCard, Sample, register
from zsadbench.errors import DataError

_TABLE = "labels.csv"


@register
class HeadCT(TreeDataset):
    """HeadCT: `labels.csv` has the labels; AnomalyCLIP's and AdaCLIP's copies have them as folders."""

    nested: ClassVar = ("head_ct", "head-ct-hemorrhage", "HeadCT_anomaly_detection", "HeadCT")
    other_names: ClassVar = {"head ct": ("headct", "brain", "object")}
    cards: ClassVar = {
        "default": DatasetCard(
            title="HeadCT",
            domain="medical",
            reference="Kitamura, Head CT - hemorrhage, Kaggle 2018",
            source="Kaggle felipekitamura/head-ct-hemorrhage",
            licence="unclear: not verified",
            image_level=True,
            pixel_level=False,
            folders=("HeadCT", "HeadCT_anomaly_detection", "head_ct", "head-ct-hemorrhage"),
            expected={"head ct": (100, 100)},
            notes="No masks. Twelve images, all normal, have an alpha channel, which is dropped: it would tell the "
            "label. DRA tests 25 of the 100 normal images.",
        ),
    }

    def find_folder(self, root: Path) -> Path:
        """Accept a folder with labels.csv, or a rearranged one."""
        return layouts.find_top(
            root,
            self.nested,
            lambda top: (top / _TABLE).is_file() or self.has_trees(top),
            f"{_TABLE} beside head_ct/head_ct, or headct/test or brain/test",
        )

    def scan_folder(self) -> Iterator[Sample]:
        """Yield the images that labels.csv lists, or those of the rearranged copy."""
        if not (self.root / _TABLE).is_file():
            yield from super().scan_folder()
            return
        folders = [self.root / "head_ct" / "head_ct", self.root / "head_ct", self.root]
        images = layouts.by_stem(next((found for found in map(layouts.images_in, folders) if found), ()))
        labels = _read_labels(self.root / _TABLE)
        odd = min(set(images) ^ set(labels), default=None)
        if odd is not None:
            raise DataError(
                f"{self.root / _TABLE} and the images do not agree on {odd}; expected a line for every image."
            )
        for stem, label in labels.items():
            yield Sample(images[stem], None, label, "head ct")


def _read_labels(path: Path) -> dict[str, Literal[0, 1]]:
    """Return the stem of an image -> its label. The header is `id, hemorrhage`, with the space."""
    labels: dict[str, Literal[0, 1]] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for row in csv.DictReader(file, skipinitialspace=True):
                number, flag = (row.get("id") or "").strip(), (row.get("hemorrhage") or "").strip()
                if not number.isdecimal() or flag not in ("0", "1"):
                    raise DataError(
                        f"{path}: got {dict(row)}; expected the columns id (a number) and hemorrhage (0 or 1)."
                    )
                stem = number.zfill(3)
                if stem in labels:
                    raise DataError(f"{path} lists {stem} twice; expected one line for every image.")
                labels[stem] = 1 if flag == "1" else 0
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    return labels
