"""Your own images: a folder in MVTec AD's layout, or an index file (CSV, JSONL, meta.json).

`--datasets folder=PATH`, or with options after dots, `folder.gt0.normal-no=PATH` (`OPTIONS` below). Results are filed
under `folder.NAME`, where NAME is the folder's name or, for an index file, FOLDER.FILE; `folder.NAME=PATH` chooses
another, for two that are called alike. Layouts and index files: docs/datasets/own.md.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import ClassVar, NamedTuple, Self

from zsadbench.data import index_files, layouts
from zsadbench.datasets import Dataset, DatasetCard, Sample, ValueRange, register
from zsadbench.errors import DataError, DatasetNotFound, UsageError

OPTIONS = {  # what may follow the name, each after a dot -> how it is told
    r"gt0": "gt0 (masks of 0 and 1, or of class indices)",
    r"huge": "huge (images of more pixels than PIL allows)",
    r"normal-(?P<normal>[^.]+)": "normal-NAME (the folders NAME hold normal images)",
    r"range-(?P<low>-?\d+)-(?P<high>-?\d+)": "range-LOW-HIGH (values of all 16-bit images that are black and white)",
}
END = "default"  # ends the options where the name of the images would read as one
LONGEST = 120  # bytes of UTF-8 in the name of one's own images; file systems allow 255, other parts included


@register
class Folder(Dataset):
    """Images of the user; which metrics are defined follows from the labels and masks that are there."""

    own = True
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
        own = _read(name.partition(".")[2])
        self._normal = own.normal
        self._index = index_files.read_index(path) if path.is_file() else None
        super().__init__(path, variant, name, data_root)
        found = [sample for group in self._samples.values() for sample in group]
        tested = [sample for sample in found if sample.split == "test"]
        self.card = replace(
            self.card,
            title=own.label,
            mask_rule=(self._index and variant == "default" and self._index.mask_rule) or self.card.mask_rule,
            value_range=own.value_range or (self._index.value_range if self._index else None),
            exif=True,
            huge="huge" in own.options,
            image_level={sample.label for sample in tested} == {0, 1},
            pixel_level=any(sample.masks for sample in tested if sample.label == 1),
        )
        self._require_all_masks(found)

    @classmethod
    def read_name(cls, stem: str, words: str, folder: Path | None) -> tuple[str, str]:
        """Return the variant and the full name: the options in one order, then what the images are called."""
        name = _read(words)
        if name.label:
            _check_label(name, f"{stem}.{words}")
        label = name.label or (_label_of(folder) if folder is not None else "")
        end = [END] if label and _option_meant(label) else []
        variant = "gt0" if "gt0" in name.options else "default"
        return variant, ".".join(filter(None, [stem, *name.options, *end, label]))

    @classmethod
    def locate(cls, data_root: Path | None, variant: str, stem: str) -> Path:
        """Refuse: a folder of one's own has no usual place."""
        raise DatasetNotFound(f"dataset {stem}: got no path; expected {stem}=PATH, a folder or an index file.")

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

    def unlisted(self) -> Self:
        """Return a copy that lists no samples, nor the rows of an index file."""
        light = super().unlisted()
        light._index = None
        return light

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


class _Name(NamedTuple):
    """What stands after the first dot of a name such as "folder.gt0.normal-no.parts"."""

    options: tuple[str, ...]  # in one order, so that one name stands for one choice
    normal: tuple[str, ...]
    value_range: ValueRange | None
    label: str  # what the images are called
    ended: bool  # END stands before the label


def _read(words: str) -> _Name:
    """Read a name: its options stand first. Raises UsageError for a wrong range."""
    found, rest = dict[str, re.Match[str]](), words
    while rest and (match := _option(rest.partition(".")[0])) is not None:
        found[match[0]] = match
        rest = rest.partition(".")[2]
    options = tuple(sorted(found))
    ranges = [(int(match["low"]), int(match["high"])) for match in found.values() if "low" in match.groupdict()]
    if len(ranges) > 1 or any(low >= high for low, high in ranges):
        raise UsageError(f"{words}: expected one range, from a lower to a higher value, such as range-0-4095.")
    normal = tuple(found[word]["normal"] for word in options if "normal" in found[word].groupdict())
    label = rest.removeprefix(f"{END}.")
    return _Name(options, normal, ranges[0] if ranges else None, label, label != rest)


def _option(word: str) -> re.Match[str] | None:
    return next(filter(None, (re.fullmatch(pattern, word) for pattern in OPTIONS)), None)


def _option_meant(label: str) -> str:
    """Return what option the first word of a name may be meant for, as it is told; "" for none."""
    word = label.partition(".")[0]
    known = {told.partition(" ")[0]: told for told in OPTIONS.values()}  # "normal-NAME" -> the whole
    alike = {usage for usage in known if ("-" in usage) == ("-" in word)}
    stems = {usage.partition("-")[0]: usage for usage in alike}
    close = get_close_matches(word.partition("-")[0], stems, n=1, cutoff=0.65)
    return known[stems[close[0]]] if close else END if word == END else ""


def _check_label(own: _Name, name: str) -> None:
    """Raise UsageError for a name of one's own images that files cannot have, or that may be an option misspelt."""
    label = own.label
    if label != _file_name(label):
        raise UsageError(f"dataset {name}: {label!r} cannot name files everywhere; expected {_file_name(label)!r}.")
    if not own.ended and _option_meant(label):
        raise UsageError(
            f"dataset {name}: did you mean the option {_option_meant(label)}? If {label!r} is what your images are "
            f"called, write {END}.{label}."
        )


def _label_of(path: Path) -> str:
    """Return what the images of a folder are called: its name, or FOLDER.FILE for an index file."""
    whole = path.resolve()
    return _file_name(f"{whole.parent.name}.{whole.stem}" if whole.is_file() else whole.name) or "images"


def _file_name(text: str) -> str:
    """Return a text as it can name files everywhere: letters and digits of any script, ".", "_" and "-" are kept.

    Long ones end in a hash; letters with accents are written in one way, whatever the file system has made of them.
    """
    composed = unicodedata.normalize("NFC", text)
    kept = [sign if unicodedata.category(sign)[0] in "LMN" or sign in "._-" else "_" for sign in composed]
    name = "".join(kept).strip(".")
    if len(name.encode()) <= LONGEST:
        return name
    end = "-" + hashlib.sha256(name.encode()).hexdigest()[:8]
    return name.encode()[: LONGEST - len(end)].decode(errors="ignore") + end


def _category_folders(root: Path) -> list[Path]:
    """Return the folders with a test split: the root itself, or else those directly in it."""
    candidates = [root] if (root / "test").is_dir() else layouts.folders_in(root)
    return [folder for folder in candidates if (folder / "test").is_dir()]
