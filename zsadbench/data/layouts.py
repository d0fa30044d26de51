"""Folder layouts that several datasets share: which files are images, which mask belongs to which image, MVTec's tree.

Nothing here reads a pixel. Files pair by name, never by position in two sorted lists (docs/datasets/index.md#adapters).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from zsadbench.data import labels
from zsadbench.datasets import Sample
from zsadbench.errors import DataError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm"})
SEARCHED = 100  # folders on each level that are looked into for a layout that starts elsewhere
MASK_SUFFIXES = ("_mask", "_label", "_GT", "_Segmentation")  # what a mask's stem adds: MVTec AD, DAGM, KSDD2, ISIC


def find_top(root: Path, nested: Iterable[str], is_top: Callable[[Path], bool], expected: str) -> Path:
    """Return the first of the root and its usual nested folders that `is_top` accepts.

    Raises DataError telling what was expected, where, what is there instead, and which folder nearby would do.
    """
    nested = tuple(nested)
    for candidate in (root, *(root / name for name in nested)):
        if is_top(candidate):
            return candidate
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; expected one with {expected}.")
    seen = sorted(path.name for path in root.iterdir())
    where = f", there or in {' or '.join(nested)}" if nested else ""
    raise DataError(
        f"{root} does not have the expected layout: {expected}{where}. "
        f"It holds {', '.join(seen[:8]) or 'nothing'}{', ...' if len(seen) > 8 else ''}."
        f"{_nearby(root, is_top)}"
    )


def _nearby(root: Path, is_top: Callable[[Path], bool]) -> str:
    """Return a question that names a folder up to two levels below or above that `is_top` accepts, "" for none."""
    below = folders_in(root)
    deeper = [folder for one in below[:SEARCHED] for folder in folders_in(one)]
    candidates = [*below[:SEARCHED], *deeper[:SEARCHED], *root.absolute().parents[:2]]
    found = next((folder for folder in candidates if is_top(folder)), None)
    return "" if found is None else f" Did you mean {found}?"


def folders_in(folder: Path) -> list[Path]:
    """Return the visible sub-folders of a folder, sorted by name; none where it does not exist."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def images_in(folder: Path) -> list[Path]:
    """Return the image files of a folder, sorted by name; none where it does not exist.

    Case of the suffix does not matter. Other files, hidden files and `NAME (copy).png` are ignored.
    """
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:  # unlike Path.iterdir it knows which are files without asking for each
        names = sorted(entry.name for entry in entries if is_image_name(entry.name) and _is_file(entry))
    return [folder / name for name in names]


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link that leads in a circle
        return False


def where_images_lie(root: Path) -> str:
    """Return a sentence that names the first image below a folder, for those who expect it elsewhere."""
    lost = next((path for path in sorted(root.rglob("*")) if is_image_name(path.name) and path.is_file()), None)
    if lost is None:
        return f"No file below {root} has the name of an image."
    return f"Expected test/good/NAME.png; the first image is {lost.relative_to(root).as_posix()}. Move the images up."


def is_image_name(name: str) -> bool:
    """Return whether a file of this name counts as an image."""
    stem, dot, suffix = name.rpartition(".")
    return f"{dot}{suffix.lower()}" in SUFFIXES and not name.startswith(".") and not stem.endswith("(copy)")


def by_stem(paths: Iterable[Path]) -> dict[str, Path]:
    """Return the paths by their names without suffix. Raises DataError when two share one."""
    found: dict[str, Path] = {}
    for path in paths:
        other = found.setdefault(path.stem, path)
        if other is not path:
            raise DataError(f"{other} and {path.name} have the same name; expected one file of each name. Remove one.")
    return found


def pair_masks(images: Sequence[Path], masks: Iterable[Path]) -> dict[Path, Path]:
    """Return the mask of each image: the same stem, or that with a mask suffix, whatever the file type.

    Raises DataError naming the first image without a mask, mask without an image, or image with two masks.
    """
    stems = by_stem(images)
    found: dict[Path, Path] = {}
    for mask in masks:
        candidates = (mask.stem, *(mask.stem.removesuffix(suffix) for suffix in MASK_SUFFIXES))
        image = next((stems[stem] for stem in candidates if stem in stems), None)
        if image is None:
            where = images[0].parent if images else "its folder"
            raise DataError(f"mask {mask} has no image; expected one named {candidates[-1]} or similar in {where}.")
        if image in found:
            raise DataError(f"{image} has two masks, {found[image]} and {mask.name}; expected one. Remove one.")
        found[image] = mask
    missing = next((image for image in images if image not in found), None)
    if missing is not None:
        raise DataError(f"{missing} has no mask; expected one of the same name. The copy may be incomplete.")
    return found


def pairs_in(folder: Path, suffix: str) -> dict[Path, Path]:
    """Return image -> mask of a folder that holds both; a mask's stem ends in `suffix`. Raises as `pair_masks`."""
    images, masks = list[Path](), list[Path]()
    for path in images_in(folder):
        (masks if path.stem.endswith(suffix) else images).append(path)
    return pair_masks(images, masks)


def mvtec_tree(
    folder: Path, category: str, *, has_masks: bool = True, normal: Collection[str] = ()
) -> Iterator[Sample]:
    """Yield the samples of one category folder in MVTec AD's layout (docs/datasets/mvtec.md).

    `train/good`, `test/good`, `test/DEFECT` and `ground_truth/DEFECT`, where other words of `labels`, or those of
    `normal`, may stand for `good`. Anomalous images in `train` are left out: the official trees have none. Raises
    DataError for images and masks that do not pair.
    """
    for path in folders_in(folder / "train"):
        if labels.is_normal(path.name, normal):
            yield from normal_samples(path, category, "train")
    for path in folders_in(folder / "test"):
        masks = folder / "ground_truth" / path.name if has_masks else None
        if labels.is_normal(path.name, normal):
            yield from normal_samples(path, category, "test")
        elif masks is not None and not masks.is_dir() and images_in(path):
            raise DataError(
                f"{path} was taken for a kind of defect, but its masks are not there: {masks} does not exist. The copy "
                f"may be incomplete; if the images are normal, call the folder good, or use "
                f"folder.normal-{path.name}={folder}."
            )
        else:
            yield from anomalous_samples(path, masks, category, labels.defect(path.name))


def normal_samples(folder: Path, category: str, split: Literal["train", "test"]) -> Iterator[Sample]:
    """Yield the images of one folder as normal samples."""
    for image in images_in(folder):
        yield Sample(image, None, 0, category, split=split)


def anomalous_samples(folder: Path, masks: Path | None, category: str, defect: str = "") -> Iterator[Sample]:
    """Yield the images of one folder as anomalous test samples with the masks of another.

    `masks` is None for a dataset without masks, whose images may share a stem (BrainMRI's Y92.jpg and Y92.png). Raises
    DataError for images and masks that do not pair.
    """
    images = images_in(folder)
    pairs = pair_masks(images, images_in(masks)) if masks is not None else {}
    for image in images:
        yield Sample(image, pairs.get(image), 1, category, defect)
