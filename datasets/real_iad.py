"""Real-IAD: images by category, and one JSON file a category with the split (docs/datasets/real_iad.md).

A row of `train` or `test` has anomaly_class ("OK" is normal), image_path and mask_path, below the category's folder.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

from zsadbench.data import layouts
from zsadbench.datasets import Dataset, DatasetCard, Sample, register
from zsadbench.errors import DataError

_JSONS = ("realiad_jsons/realiad_jsons", "realiad_jsons")
_IMAGES = ("realiad_1024", "realiad_512", "realiad_256", "realiad_raw", ".")


@register
class RealIAD(Dataset):
    """Real-IAD: 30 categories, five views an object; every view is an image of its own."""

    cards: ClassVar = {
        "default": DatasetCard(
            title="Real-IAD",
            domain="industrial",
            reference="Wang et al., CVPR 2024",
            source="realiad4ad.github.io/Real-IAD (on request): realiad_1024 and realiad_jsons",
            licence="CC BY-NC-SA 4.0",
            image_level=True,
            pixel_level=True,
            mask_rule="gt127",
            folders=("Real-IAD", "real-iad", "realiad"),
            nouns={"transistor1": "transistor", "vcpill": "pill"},
            notes="The split of realiad_jsons, all views. A view that does not show the defect counts by its "
            "anomaly_class (Real-IAD#13). Label errors are reported (#10). Unverified: layout and counts on a "
            "real copy.",
        ),
    }

    def find_top(self, root: Path) -> Path:
        """Accept a folder with the JSON files of the split."""
        return layouts.find_top(
            root, ("Real-IAD",), lambda top: bool(_splits(top)), "realiad_jsons/audiojack.json beside realiad_1024"
        )

    def scan(self) -> Iterator[Sample]:
        """Yield the samples of the categories that have both a JSON file and a folder of images."""
        for path in _splits(self.root):
            folders = (self.root / name / path.stem for name in _IMAGES)
            folder = next((folder for folder in folders if folder.is_dir()), None)
            if folder is not None:
                yield from _samples(path, folder)


def _splits(top: Path) -> list[Path]:
    """Return the JSON files of the split, sorted; none if there are none."""
    found = (sorted((top / name).glob("*.json")) for name in _JSONS)
    return next((paths for paths in found if paths), [])


def _samples(path: Path, folder: Path) -> Iterator[Sample]:
    """Yield the samples of one category. Raises DataError naming the file and the row."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    splits: tuple[Literal["train", "test"], ...] = ("train", "test")
    for split in splits:
        rows = content.get(split) if isinstance(content, dict) else None
        if not isinstance(rows, list):
            raise DataError(f"{path}: expected lists of images under 'train' and 'test'.")
        for number, row in enumerate(rows, start=1):
            where = f"{path}, {split} row {number}"
            defect = row.get("anomaly_class") if isinstance(row, dict) else None
            if not isinstance(defect, str):
                raise DataError(f"{where}: expected an object with image_path, mask_path and anomaly_class.")
            image, mask = _file(row, "image_path", folder, where), _file(row, "mask_path", folder, where)
            if image is None:
                raise DataError(f"{where}: there is no image_path.")
            if split == "test" or defect == "OK":
                label: Literal[0, 1] = 0 if defect == "OK" else 1
                yield Sample(image, mask if label else None, label, path.stem, defect if label else "", split)


def _file(row: dict[str, Any], key: str, folder: Path, where: str) -> Path | None:
    """Return the file that a row names below the folder, or None for none. Raises DataError."""
    name = row.get(key)
    if not name:
        return None
    path = folder / str(name)
    try:
        there = ".." not in Path(str(name)).parts and path.is_relative_to(folder) and path.is_file()
    except OSError:  # such as a name that is too long
        there = False
    if not there:
        raise DataError(f"{where}: {key} is {str(name)[:200]!r}; expected a file below {folder}.")
    return path
