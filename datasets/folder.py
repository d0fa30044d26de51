"""Your own images: a folder in MVTec AD's layout, or an index file (CSV, JSONL, meta.json).

`--datasets folder=PATH`, or with options after dots, `folder.gt0.normal-no=PATH` (`OPTIONS` below). Results are filed
under `folder.NAME`, where NAME is the folder's name or, for an index file, FOLDER.FILE, so that two of them do not
share records. Layouts and index files: docs/datasets/own.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, NamedTuple

from zsadbench.data import index_files, layouts
from zsadbench.datasets import Dataset, DatasetCard, Sample, ValueRange, register
from zsadbench.errors import DataError, DatasetNotFound, UsageError

OPTIONS = {  # what may follow the name, each after a dot -> how it is told
    r"gt0": "gt0 (masks of 0 and 1, or of class indices)",
    r"huge": "huge (images of more pixels than PIL allows)",
    r"normal-(?P<normal>[^.]+)": "normal-NAME (the folders NAME hold normal images)",
    r"range-(?P<low>-?\d+)-(?P<high>-?\d+)": "range-LOW-HIGH (values of all 16-bit images that are black and white)",
}


class _Options(NamedTuple):
    """What stands after the dots of a name."""

    words: tuple[str, ...]  # in one order, so that one name stands for one choice
    normal: tuple[str, ...]
    value_range: ValueRange | None


@register
class Folder(Dataset):
    """Images of the user; which metrics are defined follows from the labels and masks that are there."""

    cards: ClassVar = {
        "default": DatasetCard(
            title="Own images",
            domain="custom",
            reference="none",
            source="your own folder or index file: --datasets folder=PATH",
            licence="yours",
            image_level=True,
            pixel_level=True,
            mask_rule="gt127",
            notes="Masks of 0 and 255, JPEG noise allowed.",
        ),
        "gt0": DatasetCard(
            title="Own images",
            domain="custom",
            reference="none",
            source="your own folder or index file: --datasets folder.gt0=PATH",
            licence="yours",
            image_level=True,
            pixel_level=True,
            mask_rule="gt0",
            notes="Masks of 0 and 1 or of class indices: anything above 0 is a defect.",
        ),
    }

    def __init__(self, root: Path, variant: str, name: str, data_root: Path | None = None) -> None:
        """Read the names and the index at once, because what the card can promise depends on them."""
        path = Path(root)
        options = _options(name)
        self._normal = options.normal
        self._index = index_files.read_index(path) if path.is_file() else None
        super().__init__(path, variant, name, data_root)
        whole = path.resolve()
        self._label = f"{whole.parent.name}.{whole.stem}" if self._index else whole.name
        self.name = f"{name}.{re.sub(r'[^A-Za-z0-9._-]', '_', self._label)}"
        found = [sample for group in self._samples.values() for sample in group]
        tested = [sample for sample in found if sample.split == "test"]
        self.card = replace(
            self.card,
            title=self._label,
            mask_rule=(self._index and variant == "default" and self._index.mask_rule) or self.card.mask_rule,
            value_range=options.value_range or (self._index.value_range if self._index else None),
            exif=True,
            huge="huge" in options.words,
            image_level={sample.label for sample in tested} == {0, 1},
            pixel_level=any(sample.masks for sample in tested if sample.label == 1),
        )
        self._require_all_masks(found)

    @classmethod
    def variant_of(cls, stem: str, words: str) -> tuple[str, str]:
        """Return the variant and the full name, with the options in one order. Raises UsageError."""
        options = _options(f"{stem}.{words}").words if words else ()
        return ("gt0" if "gt0" in options else "default"), ".".join([stem, *options])

    @classmethod
    def locate(cls, data_root: Path | None, variant: str, stem: str) -> Path:
        """Refuse: a folder of one's own has no usual place."""
        raise DatasetNotFound(
            f"dataset {stem}: got no path; expected --datasets {stem}=PATH, a folder or an index file."
        )

    def find_top(self, root: Path) -> Path:
        """Accept a folder with `test`, or category folders that have one; an index's folder is found by its images."""
        if self._index is not None:
            return index_files.find_root(self._index, index_files.roots(root, self.data_root))
        return layouts.find_top(
            root,
            (),
            lambda top: bool(_category_folders(top)),
            "test/good and test/DEFECT, or category folders with them (or name an index file instead of the folder)",
        )

    def scan(self) -> Iterator[Sample]:
        """Yield the samples of the index or of the folder tree."""
        if self._index is not None:
            yield from index_files.samples(self._index, self.root, default_category=self.root.resolve().name)
            return
        folders = _category_folders(self.root)
        has_masks = any((folder / "ground_truth").is_dir() for folder in folders)
        found = False
        for folder in folders:
            for sample in layouts.mvtec_tree(folder, folder.resolve().name, has_masks=has_masks, normal=self._normal):
                found = True
                yield sample
        if not found:
            raise DataError(f"{self.spec}: no images where they are expected. {layouts.where_images_lie(self.root)}")

    def searched(self) -> Iterator[Path]:
        """Yield the whole folder: whatever image lies there should be used. An index names what it wants."""
        if self._index is None:
            yield self.root

    def _require_all_masks(self, found: list[Sample]) -> None:
        """Raise DataError for the first anomalous test image without a mask in a dataset with masks."""
        for sample in found:
            if self.card.pixel_level and sample.split == "test" and sample.label == 1 and not sample.masks:
                raise DataError(
                    f"{sample.image} is anomalous, but has no mask, while others of {self.name} have; expected a mask "
                    "for all anomalous test images or for none."
                )


def _options(name: str) -> _Options:
    """Read the options of a name such as "folder.gt0.normal-no". Raises UsageError for a word that is none."""
    found = {word: _match(word, name) for word in sorted(name.split(".")[1:])}
    ranges = [(int(match["low"]), int(match["high"])) for match in found.values() if "low" in match.groupdict()]
    if len(ranges) > 1 or any(low >= high for low, high in ranges):
        raise UsageError(f"{name}: expected one range, from a lower to a higher value, such as range-0-4095.")
    normal = tuple(match["normal"] for match in found.values() if "normal" in match.groupdict())
    return _Options(tuple(found), normal, ranges[0] if ranges else None)


def _match(word: str, name: str) -> re.Match[str]:
    match = next(filter(None, (re.fullmatch(pattern, word) for pattern in OPTIONS)), None)
    if match is None:
        raise UsageError(
            f"{name}: {word!r} is no option of your own images; expected --datasets folder=PATH, where PATH is your "
            f"folder or index file, or after dots any of {', '.join(OPTIONS.values())}. A record's name ends with the "
            "folder's name; on the command line its path is needed."
        )
    return match


def _category_folders(root: Path) -> list[Path]:
    """Return the folders with a test split: the root itself, or else those directly in it."""
    candidates = [root] if (root / "test").is_dir() else layouts.folders_in(root)
    return [folder for folder in candidates if (folder / "test").is_dir()]
