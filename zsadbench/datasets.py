"""What a dataset is: a list of samples read from a folder tree, without touching a pixel. `datasets/` holds them.

To add one, write one file in `datasets/`: a class with `cards` and `scan`, decorated with `@register`.
"""

from __future__ import annotations

import copy
import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, Self, TypeVar

from zsadbench.errors import DataError, DatasetNotFound, PluginError, UnknownName
from zsadbench.support import plugins, spelling, texts

if TYPE_CHECKING:
    from numpy import ndarray

__path__ = plugins.folders(__file__)  # makes datasets/*.py importable as zsadbench.datasets.<stem> (docs/plugins.md)

MaskRule = Literal["gt0", "gt127", "index_gt0"]
ValueRange = tuple[int, int]  # the values of 16-bit files that are black and white


@dataclass(frozen=True)
class Category:
    """One class of objects or textures; `name` is the raw folder name, `noun` what a prompt may call it."""

    name: str
    noun: str
    dataset: str


@dataclass(frozen=True)
class Sample:
    """One image of a dataset with its ground truth."""

    image: Path
    mask: Path | tuple[Path, ...] | None  # several masks are united; None: normal image, or a dataset without masks
    label: Literal[0, 1]  # 1 is anomalous; from the folder, index or full-resolution mask, never from a resized mask
    category: str
    defect: str = ""  # "" for normal images and unknown defects
    split: Literal["train", "test"] = "test"
    crop: tuple[int, int, int, int] | None = None  # of a part (KSDD): top, left, bottom, right in pixels

    @property
    def path(self) -> Path:
        """The image's path, with the crop after a "#": every sample has its own. Only `image` can be opened."""
        if self.crop is None:
            return self.image
        return self.image.with_name(f"{self.image.name}#{'-'.join(map(str, self.crop))}")

    def cut(self, pixels: ndarray) -> ndarray:
        """Return the sample's part of a decoded image or mask [H, W, ...] of full size. Raises DataError."""
        if self.crop is None:
            return pixels
        top, left, bottom, right = self.crop
        if bottom > pixels.shape[0] or right > pixels.shape[1]:
            raise DataError(
                f"{self.path} names a part that leaves the image, which is {pixels.shape[0]} pixels high and "
                f"{pixels.shape[1]} wide; expected top-left-bottom-right inside it."
            )
        return pixels[top:bottom, left:right]

    @property
    def masks(self) -> tuple[Path, ...]:
        """The mask files as a tuple, however many there are."""
        return self.mask if isinstance(self.mask, tuple) else (self.mask,) if self.mask else ()


@dataclass(frozen=True)
class DatasetCard:
    """Facts about one variant of a dataset. Written as literals: listing reads it without importing."""

    title: str  # as printed in tables
    domain: Literal["industrial", "medical", "procedural", "custom"]
    reference: str  # paper: authors, venue
    source: str  # where to get it; never a direct redistribution
    licence: str
    image_level: bool  # both normal and anomalous test images exist
    pixel_level: bool  # anomalous test images have masks
    mask_rule: MaskRule = "gt127"  # native binarisation (docs/protocol.md#masks)
    value_range: ValueRange | None = None  # of all its 16-bit images; None: 0 to 65535
    exif: bool = False  # images are turned upright as EXIF says, unless masks contradict; published sets never are
    huge: bool = False  # images above PIL's limit of pixels are read
    folders: tuple[str, ...] = ()  # names under --data-root that people give it, most common first
    nouns: Mapping[str, str] = field(default_factory=dict)  # category -> noun, where the default rule reads badly
    expected: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # category -> test (normal, anomalous)
    expected_train: Mapping[str, int] = field(default_factory=dict)  # category -> train normals
    downloads: tuple[tuple[str, str, int], ...] = ()  # public archives: (URL, "sha256:..." or "md5:...", bytes or 0)
    notes: str = ""  # traps and what is unverified

    @property
    def levels(self) -> tuple[str, ...]:
        """Return "image" and "pixel", as far as there is ground truth for them."""
        return tuple(level for level in ("image", "pixel") if getattr(self, f"{level}_level"))


@dataclass(frozen=True)
class Oddity:
    """Something odd that a number of images have."""

    count: int
    first: str  # name of the first sample that has it
    value: float = 0.0  # the largest of what was measured


class Dataset(ABC):
    """The samples of one dataset variant under one root folder.

    Subclasses set `cards` (variant name -> card, the first is the default) and define `scan`.
    """

    cards: ClassVar[Mapping[str, DatasetCard]]
    other_names: ClassVar[Mapping[str, tuple[str, ...]]] = {}  # category -> what copies and index files call it
    own: ClassVar[bool] = False  # images of the user's: every folder is a dataset of its own, "stem.NAME"

    def __init__(self, root: Path, variant: str, name: str, data_root: Path | None = None) -> None:
        """Find where the layout starts; no sample is read before `samples` or `categories` is asked for."""
        self.variant = variant
        self.card = self.cards[variant]
        self.name = name
        self.data_root = data_root
        self.folder = Path(root)  # as the user gave it; `root` may be a folder inside
        self.spec = f"{name}={root}"  # what names these samples on any command line
        self.root = self.find_top(Path(root))

    def find_top(self, root: Path) -> Path:
        """Return the folder where the layout starts: the given one, or the usual one nested in it.

        Sample names are relative to it, so that they do not depend on how an archive was unpacked. Raises DataError.
        """
        return root

    @abstractmethod
    def scan(self) -> Iterable[Sample]:
        """Yield every sample under the root, train and test, reading names and index files, but no image.

        A mask may be read where nothing else tells the label: KSDD and KSDD2 have one for every image. Raises
        DataError naming the first path that contradicts the layout.
        """

    def searched(self) -> Iterable[Path]:
        """Return the folders in which every image should be a sample or a mask: what else lies there is told."""
        return ()

    @classmethod
    def read_name(cls, stem: str, words: str, folder: Path | None) -> tuple[str, str]:
        """Return the variant (a key of `cards`) and the full name for what stands after the first dot of a name.

        A subclass may take more words, and read them from its `name`; one of the user's own images adds what the folder
        that was given, if one was, is called. Raises UnknownName.
        """
        default = next(iter(cls.cards))
        variant = spelling.match(f"variant of {stem}", words, cls.cards) if words else default
        return variant, _full_name(stem, variant, default)

    @classmethod
    def locate(cls, data_root: Path | None, variant: str, stem: str) -> Path:
        """Return the dataset's folder below the data root. Raises DataError listing the paths that were tried."""
        if data_root is None:
            raise DatasetNotFound(
                f"dataset {stem}: got no data root; expected a folder with one folder a dataset. "
                f"Give --data-root DIR, set ZSADBENCH_DATA, or name the folder itself: --datasets {stem}=DIR."
            )
        names = cls.folder_names(variant, stem)
        for name in names:
            if (data_root / name).is_dir():
                return data_root / name
        raise DatasetNotFound(
            f"dataset {stem}: no folder found under {data_root}; tried {', '.join(names)}. "
            f"{_other_place(data_root, names, stem)}Get it from: {cls.cards[variant].source}. "
            f"If it lies elsewhere, use --datasets {stem}=DIR."
        )

    @classmethod
    def folder_names(cls, variant: str, stem: str) -> tuple[str, ...]:
        """Return what the dataset's folder may be called; the variants' own names come first, so that they differ."""
        folders = cls.cards[variant].folders
        if variant == next(iter(cls.cards)):
            return tuple(dict.fromkeys((stem, *folders)))
        return tuple(dict.fromkeys((f"{stem}.{variant}", *folders, stem)))

    @cached_property
    def _samples(self) -> dict[tuple[str, str], tuple[Sample, ...]]:
        groups: dict[tuple[str, str], list[tuple[str, Sample]]] = {}
        for sample in self.scan():
            name = self.sample_id(sample)
            texts.require_utf8(name)
            groups.setdefault((sample.category, sample.split), []).append((name, sample))
        if not groups:
            raise DataError(
                f"dataset {self.name}: no images found under {self.root}; see `zsadbench data check {self.spec}`."
            )
        return {
            key: tuple(sample for _, sample in sorted(group, key=itemgetter(0)))
            for key, group in sorted(groups.items())
        }

    def categories(self) -> tuple[Category, ...]:
        """Return the categories that have test samples, sorted by name."""
        found = sorted({category for category, split in self._samples if split == "test"})
        return tuple(Category(name, self.card.nouns.get(name, readable_noun(name)), self.name) for name in found)

    def samples(self, category: str, split: Literal["train", "test"] = "test") -> tuple[Sample, ...]:
        """Return the samples of a category in a stable order; reads no image. Raises UnknownName."""
        found = self._samples.get((category, split))
        if found is None and category not in {name for name, _ in self._samples}:
            raise UnknownName(f"category of {self.name}", category, {name for name, _ in self._samples})
        return found or ()

    def unlisted(self) -> Self:
        """Return a copy that describes samples but lists none, for a worker that is given its own."""
        light = copy.copy(self)
        light.__dict__["_samples"] = {}
        return light

    def sample_id(self, sample: Sample) -> str:
        """Return the sample's POSIX path relative to the root: its stable name, such as kos01/Part0.jpg#0-0-416-500."""
        whole, below = str(sample.path), f"{self.root}{os.sep}"
        if whole.startswith(below):  # what relative_to gives, in a tenth of its time
            return whole[len(below) :].replace(os.sep, "/")
        try:
            return sample.path.relative_to(self.root).as_posix()
        except ValueError:
            return sample.path.as_posix()

    def samples_sha256(self, samples: Iterable[Sample]) -> str:
        """Return a hash of a sample list: names, labels, defects and masks, in order."""
        digest = hashlib.sha256()
        for sample in samples:
            fields = (self.sample_id(sample), str(sample.label), sample.defect, *(mask.name for mask in sample.masks))
            digest.update("\0".join(fields).encode() + b"\n")
        return digest.hexdigest()


def _other_place(data_root: Path, names: Iterable[str], stem: str) -> str:
    """Return a question that names a folder of the dataset one level above or below, "" where there is none."""
    if data_root.name in names:
        return f"Did you mean --data-root {data_root.parent}? "
    below = sorted(path for name in names for path in data_root.glob(f"*/{name}") if path.is_dir())
    return f"Did you mean {stem}={below[0]}? " if below else ""


def readable_noun(name: str) -> str:
    """Return the default prompt noun of a folder name: "_" is a space, trailing digits go (docs/prompts.md#nouns)."""
    return name.replace("_", " ").rstrip("0123456789").strip() or name


AnyDataset = TypeVar("AnyDataset", bound=type[Dataset])


def register(dataset: AnyDataset) -> AnyDataset:
    """Class decorator: declare the one dataset of this module; its CLI name is the module's last name."""
    plugins.register(dataset, required=("cards",))
    return dataset


@dataclass(frozen=True)
class DatasetListing:
    """One line of `zsadbench list datasets`: a dataset variant, or why its plugin cannot be read."""

    name: str
    card: DatasetCard | None
    problem: str = ""


def available() -> list[DatasetListing]:
    """List every dataset variant from its source, importing none; the default variant has the plain name."""
    listings = []
    for stem in plugins.names(__name__):
        try:
            cards, _ = plugins.declared(__name__, stem, DatasetCard)
            default = next(iter(cards))
            listings += [DatasetListing(_full_name(stem, variant, default), card) for variant, card in cards.items()]
        except PluginError as error:
            listings.append(DatasetListing(stem, None, problem=str(error)))
    return listings


def create(name: str, data_root: Path | None = None) -> Dataset:
    """Make a dataset from "name", "name.variant" or either with "=FOLDER".

    Raises UnknownName, UsageError, DataError (folder not found) or PluginError. No image is read.
    """
    dataset, variant, full, folder = _resolve(name)
    if folder is None:
        folder = dataset.locate(data_root, variant, full if dataset.own else full.partition(".")[0])
    elif not folder.exists():
        raise DatasetNotFound(f"dataset {full}: {folder} does not exist; expected the dataset's own folder after '='.")
    return dataset(folder, variant, full, data_root)


def name_of(name: str) -> str:
    """Return the name that `create` would give, such as "folder.parts" for "folder=/my/parts"; raises as it does."""
    return _resolve(name).full


def registered_name(name: str) -> str:
    """Return a dataset's name, with "=FOLDER" or without, as it is registered; what users call their own is kept.

    "MVTec" and "MVTec-AD" are mvtec. Raises UnknownName, UsageError or PluginError.
    """
    found = _resolve(name)
    given, equals, folder = name.partition("=")
    return f"{_in_listing(given) if found.dataset.own else found.full}{equals}{folder}"


def _in_listing(name: str) -> str:
    """Return a name with the registered one before its first dot; a title such as "MVTec AD" stands for one too."""
    stem, dot, words = name.partition(".")
    found = spelling.match(
        "dataset", stem, plugins.names(__name__), lambda: {one.card.title: one.name for one in available() if one.card}
    )
    return found + dot + words


def is_own(name: str) -> bool:
    """Return whether a name is that of images of the user's. Raises UnknownName, UsageError or PluginError."""
    return _resolve(name).dataset.own


class _Resolved(NamedTuple):
    """What a name stands for."""

    dataset: type[Dataset]
    variant: str
    full: str
    folder: Path | None  # that was given


def _resolve(text: str) -> _Resolved:
    name, _, given = text.partition("=")
    stem, _, words = _in_listing(name).partition(".")
    folder = Path(given).expanduser() if given else None
    dataset = plugins.registered(__name__, stem, Dataset)  # type: ignore[type-abstract]  # plugins are concrete
    return _Resolved(dataset, *dataset.read_name(stem, words, folder), folder)


def _full_name(stem: str, variant: str, default: str) -> str:
    return stem if variant == default else f"{stem}.{variant}"
