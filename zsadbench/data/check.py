"""`zsadbench data check`: whether a dataset folder holds what its card expects, and whether every file is sound.

`check_dataset` holds an adapter, not its files, to the contract of `zsadbench.datasets`.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from tabulate import tabulate

from zsadbench import datasets
from zsadbench.data import findings, reading
from zsadbench.data.findings import Finding
from zsadbench.data.images import DECODERS, Header, read_picture
from zsadbench.data.masks import MaskFile, foreground, mask_file
from zsadbench.data.reading import Reader
from zsadbench.datasets import Dataset, MaskRule, Sample
from zsadbench.errors import DataError, DatasetNotFound

Thing = TypeVar("Thing")
Progress = Callable[[int, int], None]  # called with (done, total) images

SUFFIXES = {  # format of the content: suffixes that announce it
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "JPEG": (".jpg", ".jpeg"),
    "MPO": (".jpg", ".jpeg"),  # JPEG with several pictures, from phones and stereo cameras
    "PNG": (".png",),
    "PPM": (".ppm", ".pgm"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}


class Count(NamedTuple):
    """How many samples one category has and should have; None: nothing is known."""

    category: str
    test: tuple[int, int]  # normal, anomalous
    expected_test: tuple[int, int] | None
    train: int  # normal
    expected_train: int | None

    @property
    def complete(self) -> bool:
        """Whether the test split has the expected counts."""
        return self.expected_test in (None, self.test)

    @property
    def train_complete(self) -> bool:
        """Whether the train split has the expected count, or is left out altogether: zero-shot needs none."""
        return self.expected_train in (None, self.train) or self.train == 0


@dataclass(frozen=True)
class Report:
    """What a check found; `ok` is the verdict."""

    dataset: str
    root: Path
    counts: tuple[Count, ...]
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether all counts are as expected and no file is wrong; notes do not matter."""
        counted = all(count.complete and count.train_complete for count in self.counts)
        return counted and not any(finding.wrong for finding in self.findings)


class _File(NamedTuple):
    """What one thread learnt about one image and its masks."""

    name: str
    label: int
    digest: str
    findings: tuple[Finding, ...]


def check_named(name: str, data_root: Path | None = None, progress: Progress | None = None) -> Report:
    """Check the dataset of a name as `zsadbench.datasets.create` takes it: see `check`.

    Raises what `create` raises, but a layout that cannot be read is a finding, whenever it shows.
    """
    try:
        return check(datasets.create(name, data_root), progress)
    except DatasetNotFound:
        raise
    except DataError as error:
        stem, _, folder = name.partition("=")
        return _unreadable(stem, Path(folder or data_root or "."), error)


def check(dataset: Dataset, progress: Progress | None = None, *, threads: int | None = None) -> Report:
    """Read every image and mask of a dataset and compare the counts with its card.

    `progress` is called with (done, total) images, in this thread. A layout that cannot be read is a finding.
    """
    try:
        samples = all_samples(dataset)
    except DataError as error:
        return _unreadable(dataset.name, dataset.root, error)
    readers = {category.name: Reader(dataset, dataset.samples(category.name)) for category in dataset.categories()}
    files = []
    with ThreadPoolExecutor(threads or DECODERS) as pool:
        for file in pool.map(lambda sample: _inspect(dataset, readers[sample.category], sample), samples):
            files.append(file)
            if progress is not None:
                progress(len(files), len(samples))
    found = [finding for file in files for finding in file.findings]
    found = [*findings.of_names(dataset), *found, *_of_pixels(dataset, readers, samples), *_duplicates(files)]
    return Report(dataset.name, dataset.root, _counts(dataset, samples), tuple(found))


def _unreadable(name: str, root: Path, error: DataError) -> Report:
    return Report(name, root, (), (Finding("layout", str(error), True),))


def _of_pixels(dataset: Dataset, readers: Mapping[str, Reader], samples: Sequence[Sample]) -> list[Finding]:
    """Return what the readers of all categories found odd, each with the names of all files."""
    own = {name: [sample for sample in samples if sample.category == name] for name in readers}
    odd = {name: reader.oddities(own[name]) for name, reader in readers.items()}
    names: dict[str, list[str]] = {}
    for category, kinds in odd.items():
        for kind in kinds:
            names.setdefault(kind, []).extend(readers[category].having(kind, own[category]))
    told = findings.of_pixels(dataset.name, reading.add(odd.values()))
    return [finding._replace(files=tuple(names[finding.kind])) for finding in told]


def render(report: Report) -> str:
    """Return a report as Markdown: a table of counts, problems, notes (first file of each kind) and the verdict."""
    rows = [
        (
            count.category,
            _of(count.test[0], count.expected_test and count.expected_test[0]),
            _of(count.test[1], count.expected_test and count.expected_test[1]),
            _of(count.train, count.expected_train),
            _state(count),
        )
        for count in report.counts
    ]
    parts = [f"## {report.dataset} ({report.root})"]
    if rows:
        headers = ("category", "test normal", "test anomalous", "train normal", "state")
        parts.append(tabulate(rows, headers, tablefmt="pipe", disable_numparse=True))
    for title, wrong in (("Problems", True), ("Notes", False)):
        kinds = Counter(finding.kind for finding in report.findings if finding.wrong == wrong)
        if kinds:
            first = {kind: next(f.message for f in report.findings if f.kind == kind) for kind in kinds}
            lines = (f"- {kind}{f' ({count})' if count > 1 else ''}: {first[kind]}" for kind, count in kinds.items())
            parts.append("\n".join([f"### {title}", *lines]))
    parts.append(_verdict(report))
    return "\n\n".join(parts).encode("utf-8", "backslashreplace").decode()  # file names need not be UTF-8


def _verdict(report: Report) -> str:
    if not report.ok:
        return "Not as expected: see the table and the problems."
    return "Nothing is wrong, but see the notes." if report.findings else "Everything is as expected."


def facts(report: Report) -> dict[str, Any]:
    """Return a report as JSON values: the verdict, the counts by category, and every finding."""
    return {
        "dataset": report.dataset,
        "root": str(report.root),
        "ok": report.ok,
        "counts": [count._asdict() | {"state": _state(count)} for count in report.counts],
        "findings": [finding._asdict() for finding in report.findings],
    }


def all_samples(dataset: Dataset) -> list[Sample]:
    """Return test and train samples of every category that has test samples. Raises DataError."""
    return [
        sample
        for category in dataset.categories()
        for sample in dataset.samples(category.name) + dataset.samples(category.name, "train")
    ]


def _inspect(dataset: Dataset, reader: Reader, sample: Sample) -> _File:
    """Read one image and its masks to the last pixel, opening each file once."""
    name, card, found, digest = dataset.sample_id(sample), dataset.card, list[Finding](), ""
    try:
        content = sample.image.read_bytes()
        digest = hashlib.sha256(content + repr(sample.crop).encode()).hexdigest()
        picture = read_picture(sample.image, values=card.value_range, huge=card.huge, content=content)
        reader.cut(sample, picture)
        found += _suffix(sample.image, picture.format) + _link(sample.image, dataset.root)
    except (DataError, OSError) as error:
        return _File(name, sample.label, digest, (Finding("unreadable image", str(error), True),))
    if card.pixel_level and (sample.masks or (sample.label == 1 and sample.split == "test")):
        height, width = picture.pixels.shape[:2]
        header = Header(height, width, picture.format, picture.orientation)
        try:
            files = [mask_file(path, card.mask_rule, huge=card.huge) for path in sample.masks]
            reader.unite(sample, files, card.mask_rule, header)
            found += [finding for file in files for finding in _inspect_mask(file, card.mask_rule)]
        except DataError as error:
            found.append(Finding("wrong mask", str(error), True))
    return _File(name, sample.label, digest, tuple(found))


def _inspect_mask(file: MaskFile, rule: MaskRule) -> list[Finding]:
    path, values = file.path, file.values
    found = _suffix(path, file.format)
    if rule == "gt127":
        between = int(((values > 0) & (values < np.iinfo(values.dtype).max)).sum())
        if between:
            share = between / max(int(foreground(values, rule).sum()), 1)
            text = (
                f"{path} has values between black and white, {share:.1%} as many as foreground pixels: {rule} decides."
            )
            found.append(Finding("unexpected mask values", text, False))
    elif file.format == "JPEG":
        text = f"{path} is a JPEG, whose noise counts as defect under the rule {rule}; expected a lossless file."
        found.append(Finding("unexpected mask values", text, False))
    return found


def _suffix(path: Path, content: str) -> list[Finding]:
    if path.suffix.lower() in SUFFIXES.get(content, (path.suffix.lower(),)):
        return []
    return [Finding(f"{path.suffix} files that hold {content}", f"{path} is read by its content.", False)]


def _link(path: Path, root: Path) -> list[Finding]:
    if not path.is_symlink() and _is_below(path.parent, root):
        return []
    target = Path(os.path.realpath(path))
    if target.is_relative_to(os.path.realpath(root)):
        return []
    return [Finding("links that lead outside", f"{path} is read from {target}.", False)]


@lru_cache(maxsize=1024)
def _is_below(folder: Path, root: Path) -> bool:
    return Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(root))


def _duplicates(files: Sequence[_File]) -> list[Finding]:
    """Return one finding for each group of byte-identical images; a problem if their labels differ.

    Folders that hold the same images are told as such, once.
    """
    folders: dict[str, list[_File]] = {}
    for file in files:
        folders.setdefault(file.name.rpartition("/")[0], []).append(file)
    copies = [
        group for group in _equal(folders, _content) if len(folders[group[0]]) > 1 and _content(folders[group[0]])
    ]
    found = [
        Finding("copied folders", f"{' = '.join(group)}, {len(folders[group[0]])} images each.", False)
        for group in copies
    ]
    home = {folder: number for number, group in enumerate(copies) for folder in group}
    by_name = {file.name: file for file in files}
    for names in _equal(by_name, lambda file: file.digest):
        if not by_name[names[0]].digest:
            continue
        wrong = len({by_name[name].label for name in names}) > 1
        homes = {home.get(name.rpartition("/")[0]) for name in names}
        if wrong or len(homes) > 1 or None in homes:
            kind = "identical images with different labels" if wrong else "identical images"
            found.append(Finding(kind, f"{' = '.join(names)}.", wrong))
    return found


def _content(files: Iterable[_File]) -> tuple[str, ...]:
    """Return what a folder holds whatever the names, () if a file could not be read."""
    digests = sorted(file.digest for file in files)
    return tuple(digests) if all(digests) else ()


def _equal(things: Mapping[str, Thing], key: Callable[[Thing], object]) -> list[list[str]]:
    """Return the names of the things that have the same key as another one, group by group."""
    groups: dict[object, list[str]] = {}
    for name, thing in things.items():
        groups.setdefault(key(thing), []).append(name)
    return [names for names in groups.values() if len(names) > 1]


def _counts(dataset: Dataset, samples: Iterable[Sample]) -> tuple[Count, ...]:
    found = Counter((sample.category, sample.split, sample.label) for sample in samples)
    card = dataset.card
    return tuple(
        Count(
            name,
            (found[name, "test", 0], found[name, "test", 1]),
            card.expected.get(name),
            found[name, "train", 0],
            card.expected_train.get(name),
        )
        for name in sorted({category for category, _, _ in found} | set(card.expected))
    )


def _of(found: int, expected: int | None) -> str:
    return f"{found}" if expected in (None, found) else f"{found} of {expected}"


def _state(count: Count) -> str:
    if count.expected_test is None:
        return "no expected counts"
    if count.test == (0, 0):
        return "absent"
    test = "test complete" if count.complete else "test incomplete"
    return test if count.train_complete else f"{test}, train incomplete"
