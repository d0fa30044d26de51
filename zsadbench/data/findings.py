"""What should be known about a dataset before its numbers are believed, told alike by `data check` and by `run`.

`of_counts` and `of_names` open no file, so that a run can tell them before it starts; `of_pixels` is for its end.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from zsadbench.data import labels, layouts
from zsadbench.datasets import Dataset, Oddity, Sample
from zsadbench.errors import counted

_TEXT = frozenset(
    ".txt .md .rst .csv .tsv .json .jsonl .xml .yaml .yml .toml .html .pdf .db .ini .log .py .sha256 .md5".split()
)  # suffixes of files that nobody takes for images


class Finding(NamedTuple):
    """One thing that is wrong (a problem) or worth knowing (a note)."""

    kind: str  # findings of a kind are counted together
    message: str  # a sentence that names the file or the category, with the remedy
    wrong: bool
    files: tuple[str, ...] = ()  # all that have it, where the message names the first only


def of_names(dataset: Dataset, categories: Sequence[str] = ()) -> list[Finding]:
    """Return what names tell about a dataset, or about some of its categories: labels, files that are not read."""
    chosen = _chosen(dataset, categories)
    return [*_labels(dataset, chosen), *_merged(dataset, chosen), *([] if categories else _unread(dataset))]


def of_counts(dataset: Dataset, categories: Sequence[str] = ()) -> Iterator[Finding]:
    """Say when a copy of a dataset is not what published numbers were measured on."""
    wrong = []
    for category in _chosen(dataset, categories):
        found, expected = test_counts(dataset, category), dataset.card.expected.get(category)
        if expected is not None and found != tuple(expected):
            wrong.append(
                f"{category} has {found[0]} normal and {found[1]} anomalous, not {expected[0]} and {expected[1]}"
            )
    if wrong:
        more = f" (and {counted(len(wrong) - 1, 'more category', 'more categories')})" if len(wrong) > 1 else ""
        text = (
            f"{dataset.name} differs from the data that published numbers stand for: {wrong[0]}{more}. "
            f"See zsadbench data check {dataset.spec}."
        )
        yield Finding("unexpected counts", text, False)


def _chosen(dataset: Dataset, categories: Sequence[str]) -> list[str]:
    return [category.name for category in dataset.categories() if category.name in categories or not categories]


def test_counts(dataset: Dataset, category: str) -> tuple[int, int]:
    """Return how many test images of a category are normal and how many anomalous."""
    found = [sample.label for sample in dataset.samples(category)]
    return found.count(0), found.count(1)


def _labels(dataset: Dataset, categories: Iterable[str]) -> Iterator[Finding]:
    """Say which test splits have one label only. In a folder tree without normal images the names are to blame."""
    for category in categories:
        counts = test_counts(dataset, category)
        if all(counts) or 0 in dataset.card.expected.get(category, ()):
            continue
        samples = dataset.samples(category)
        if counts[0] or dataset.folder.is_file():
            here, lacking, example = ("normal", "anomalous", "1") if counts[0] else ("anomalous", "normal", "0")
            where = f"rows with the label {example}" if dataset.folder.is_file() else "a folder such as test/scratch"
            text = (
                f"{dataset.name}, {category}: all {len(samples)} test images are {here}, none is {lacking}, so that no "
                f"image metric can be defined; expected {where}."
            )
            yield Finding("one label", text, False)
        else:
            folders = sorted({sample.image.parent.name for sample in samples})
            taken = f"{', '.join(folders[:8])}{', ...' if len(folders) > 8 else ''}"
            own = f", or tell its name: {dataset.spec.replace('.', '.normal-NAME.', 1)}"
            text = (
                f"{dataset.name}, {category}: not one of {len(samples)} test images is normal, and no image metric can "
                f"be defined. These folders were taken for kinds of defects: {taken}. If one of them holds the normal "
                f"images, call it good{own if dataset.card.domain == 'custom' else ''}."
            )
            yield Finding("no normal images", text, True)


def _merged(dataset: Dataset, categories: Iterable[str]) -> Iterator[Finding]:
    """Say which categories of an index file hold images of several official ones (AnomalyCLIP's object, all wovens)."""
    official = {name: name for name in dataset.card.expected}
    official |= {other: name for name, others in dataset.other_names.items() for other in others}
    for category in categories:
        places = {place for sample in dataset.samples(category) for place in dataset.sample_id(sample).split("/")[:-1]}
        found = sorted({official[place] for place in places & official.keys()})
        if len(found) > 1:
            text = (
                f"{dataset.name}: the category {category} merges {len(found)} official ones, {', '.join(found)}. Its "
                "numbers do not compare with published ones, which are means over these; name them in the index file."
            )
            yield Finding("merged categories", text, False)


def _unread(dataset: Dataset) -> Iterator[Finding]:
    """Say which files lie where images are looked for, but are not read: deeper folders, other file types."""
    files = list(unread_files(dataset))
    if not files:
        return
    top = Path(os.path.commonpath([path.parent for path in files]))
    where = "" if top == dataset.root else f" below {_name(dataset, top)}/"
    known = [path for path in files if layouts.is_image_name(path.name)]
    other = [path for path in files if not layouts.is_image_name(path.name)]
    parts = []
    if known:
        text = f"{counted(len(known), 'image')} in folders where none is expected, such as {_name(dataset, known[0])}"
        parts.append(f"{text} (expected test/good/NAME.png, test/DEFECT/NAME.png)")
    if other:
        text = f"{counted(len(other), 'file')} of another type, such as {_name(dataset, other[0])}"
        parts.append(f"{text} (save images as .png, .jpg or .tif)")
    verb = "is" if len(files) == 1 else "are"
    text = f"{dataset.name}: {counted(len(files), 'file')}{where} {verb} not read: {'; '.join(parts)}."
    yield Finding("files that are not read", text, False)


def unread_files(dataset: Dataset) -> Iterator[Path]:
    """Yield, sorted within a folder, the files that lie where images are searched and belong to no sample.

    Hidden files, text files and masks of normal images do not count.
    """
    read = {str(path) for sample in _everything(dataset) for path in (sample.image, *sample.masks)}
    for top in dataset.searched():
        for folder, below, names in os.walk(top):
            below[:] = sorted(name for name in below if not name.startswith("."))
            if folder.endswith("ground_truth"):
                below[:] = [name for name in below if not labels.is_normal(name)]
            for name in sorted(names):
                text = name.startswith(".") or name[name.rfind(".") :].lower() in _TEXT
                if not text and f"{folder}{os.sep}{name}" not in read:
                    yield Path(folder, name)


def of_pixels(dataset: str, oddities: Mapping[str, Oddity]) -> list[Finding]:
    """Return what only the pixels of a dataset show, as notes with the remedy, by the name of the dataset."""
    return [
        Finding(kind, f"{dataset}: {_PIXELS[kind](oddity)}", False)
        for kind, oddity in sorted(oddities.items())
        if kind in _PIXELS
    ]


def _dark(odd: Oddity) -> str:
    bits = next((bits for bits in (8, 10, 12, 14) if odd.value < 2**bits), 16)
    return (
        f"{_files(odd, 'file')} of 16 bits with values up to {odd.value:.0f} only, the lowest {bits} bits: they are "
        f"read nearly black. If that is the range of the camera: folder.range-0-{2**bits - 1}=PATH."
    )


def _files(odd: Oddity, noun: str) -> str:
    return f"{counted(odd.count, noun)}, such as {odd.first}," if odd.count > 1 else f"one {noun}, {odd.first},"


_PIXELS: dict[str, Callable[[Oddity], str]] = {
    "dark 16 bits": _dark,
    "empty mask": lambda odd: (
        f"{_files(odd, 'anomalous image')} with an empty mask. Pixel metrics count each as an image without a defect; "
        "draw the mask, or correct the label."
    ),
    "mask in alpha": lambda odd: (
        f"{_files(odd, 'mask')} of one colour with an alpha channel that varies. Alpha is not read: if the mask lies "
        "there, save that channel as a grey image."
    ),
    "not turned": lambda odd: (
        f"{_files(odd, 'image')} with an EXIF orientation that is not applied, because published code does not, or the "
        "masks fit the pixels as they are stored. If the images lie on their side, save them turned."
    ),
    "outside the range": lambda odd: (
        f"{_files(odd, 'image')} with values outside the range that the data set's name gives: they are cut to it."
    ),
    "turned": lambda odd: (
        f"{_files(odd, 'image')} turned upright as EXIF says. Other tools may read the pixels as stored: save them "
        "turned, and all agree."
    ),
    "wide masks": lambda odd: (
        f"the masks of {counted(odd.count, 'image')} cover {odd.value:.0%} of the image on average. If they mark what "
        "is normal, invert them."
    ),
}


def _everything(dataset: Dataset) -> Iterator[Sample]:
    for category in dataset.categories():
        yield from dataset.samples(category.name, "test")
        yield from dataset.samples(category.name, "train")


def _name(dataset: Dataset, path: Path) -> str:
    return (path.relative_to(dataset.root) if path.is_relative_to(dataset.root) else path).as_posix()
