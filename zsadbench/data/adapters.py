"""What the adapters in `datasets/` share: the layouts that many datasets have, and index files in place of folders.

An adapter derives from one of these classes, or from `zsadbench.datasets.Dataset` itself.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Self

from zsadbench.data import index_files, layouts
from zsadbench.data.masks import foreground, raw_mask
from zsadbench.datasets import Dataset, MaskRule, Sample
from zsadbench.errors import DataError


class IndexedDataset(Dataset):
    """A dataset read from its folder, or from an index file of published code: `--datasets btad=meta_BTAD.json`.

    Paths in an index file start beside it, at the data root or at the dataset's folder there (docs/datasets/own.md).
    Subclasses define `find_folder` and `scan_folder`.
    """

    _index: index_files.Index | None = None

    @abstractmethod
    def find_folder(self, root: Path) -> Path:
        """Return the folder where the layout starts, as `find_top` does. Raises DataError."""

    @abstractmethod
    def scan_folder(self) -> Iterable[Sample]:
        """Yield the samples of the folder, as `scan` does. Raises DataError."""

    def find_top(self, root: Path) -> Path:
        """Return the folder where the paths of the index file start, or where the layout does."""
        if root.is_file():
            self._index = index_files.read_index(root)
            names = self.folder_names(self.variant, self.name.partition(".")[0])
            below = (self.data_root, *(self.data_root / name for name in names)) if self.data_root else ()
            return index_files.find_root(self._index, index_files.roots(root, *below))
        try:
            return self.find_folder(root)
        except DataError as error:
            index = next((root / name for name in ("meta.json", "full-shot.jsonl") if (root / name).is_file()), None)
            if index is None:
                raise
            raise DataError(f"{error} To read the index file there, use --datasets {self.name}={index}.") from None

    def unlisted(self) -> Self:
        """Return a copy that lists no samples, nor the rows of an index file."""
        light = super().unlisted()
        light._index = None
        return light

    def scan(self) -> Iterator[Sample]:
        """Yield the samples of the index file or of the folder; an index file's categories get the card's names."""
        if self._index is None:
            yield from self.scan_folder()
            return
        only = next(iter(self.card.expected)) if len(self.card.expected) == 1 else ""
        names = {other: name for name, others in self.other_names.items() for other in others}
        for sample in index_files.samples(self._index, self.root, default_category=only):
            if sample.split == "test" or sample.label == 0:
                mask = sample.mask if self.card.pixel_level else None
                yield replace(sample, category=only or names.get(sample.category, sample.category), mask=mask)


class TreeDataset(IndexedDataset):
    """A dataset whose category folders have MVTec AD's layout; categories that are not there are left out."""

    nested: ClassVar[tuple[str, ...]] = ()  # folders that the category folders may lie in

    def find_folder(self, root: Path) -> Path:
        """Accept a folder with at least one category folder that has a test split."""
        first = next(iter(self._names()))
        return layouts.find_top(root, self.nested, self.has_trees, f"category folders such as {first}/test")

    def scan_folder(self) -> Iterator[Sample]:
        """Yield the samples of the categories that are there, masks included if the card has any."""
        for category, folder in self._trees(self.root).items():
            yield from layouts.mvtec_tree(folder, category, has_masks=self.card.pixel_level)

    def searched(self) -> Iterator[Path]:
        """Yield the test and train folders that were read."""
        if self._index is None:
            for folder in self._trees(self.root).values():
                yield from (folder / "test", folder / "train")

    def has_trees(self, top: Path) -> bool:
        """Return whether a folder holds a category folder."""
        return bool(self._trees(top))

    def _trees(self, top: Path) -> dict[str, Path]:
        """Return category -> its folder; of several names the first that is there counts."""
        found: dict[str, Path] = {}
        for category, names in self._names().items():
            folder = next((top / name for name in names if (top / name / "test").is_dir()), None)
            if folder is not None:
                found[category] = folder
        return found

    def _names(self) -> dict[str, tuple[str, ...]]:
        categories = self.card.expected or self.other_names
        return {category: (category, *self.other_names.get(category, ())) for category in categories}


class PairedDataset(IndexedDataset):
    """A dataset of one category and of anomalous images only, in one folder, with their masks in another.

    Skin lesions, polyps and nodules come like this. AdaCLIP's copies have MVTec AD's layout without normal images.
    """

    pairs: ClassVar[tuple[tuple[str, str], ...]]  # (folder of images, folder of masks); the first that is there counts
    nested: ClassVar[tuple[str, ...]] = ()  # folders that these may lie in

    def find_folder(self, root: Path) -> Path:
        """Accept a folder with a pair of folders, or with `test` and `ground_truth`."""
        expected = ", or ".join(f"{images} and {masks}" for images, masks in self.pairs)
        return layouts.find_top(root, self.nested, self.is_top, f"{expected}, or test and ground_truth")

    def is_top(self, top: Path) -> bool:
        """Return whether the layout starts at a folder."""
        return self._pair(top) is not None or _are_folders(top / "test", top / "ground_truth")

    def scan_folder(self) -> Iterator[Sample]:
        """Yield every image as an anomalous sample with its mask."""
        (category,) = self.card.expected
        pair = self._pair(self.root)
        if pair is None:
            yield from layouts.mvtec_tree(self.root, category)
        else:
            yield from layouts.anomalous_samples(*pair, category)

    def _pair(self, top: Path) -> tuple[Path, Path] | None:
        folders = ((top / images, top / masks) for images, masks in self.pairs)
        return next((pair for pair in folders if _are_folders(*pair)), None)


def labelled_by_mask(image: Path, mask: Path, category: str, rule: MaskRule) -> Sample:
    """Return the test sample of an image whose mask alone tells the label: anomalous if any pixel of it is marked.

    A mask that marks nothing is left out. Raises DataError if the mask cannot be read.
    """
    marked = foreground(raw_mask(mask, rule), rule).any()
    return Sample(image, mask, 1, category) if marked else Sample(image, None, 0, category)


def _are_folders(*paths: Path) -> bool:
    return all(path.is_dir() for path in paths)
