"""`zsadbench data check`: whether a dataset folder holds what its card expects, and whether every file is sound.

`check_dataset` holds an adapter, not its files, to the contract of `zsadbench.datasets`.
"""

from __future__ import annotations

import copy
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
from PIL import Image
from tabulate import tabulate

from zsadbench.data import findings
from zsadbench.data.findings import Finding
from zsadbench.data.images import decode_image, read_header
from zsadbench.data.masks import foreground, raw_mask, read_mask
from zsadbench.datasets import Dataset, Sample
from zsadbench.errors import DataError

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


def check(dataset: Dataset, progress: Progress | None = None, *, threads: int | None = None) -> Report:
    """Read every image and mask of a dataset and compare the counts with its card.

    `progress` is called with (done, total) images, in this thread. A layout that cannot be read is a finding.
    """
    try:
        samples = _all_samples(dataset)
    except DataError as error:
        return Report(dataset.name, dataset.root, (), (Finding("layout", str(error), True),))
    files = []
    with ThreadPoolExecutor(threads or min(8, os.cpu_count() or 1)) as pool:
        for file in pool.map(lambda sample: _inspect(dataset, sample), samples):
            files.append(file)
            if progress is not None:
                progress(len(files), len(samples))
    found = [finding for file in files for finding in file.findings]
    found = [*findings.of_names(dataset), *found, *_duplicates(files)]
    return Report(dataset.name, dataset.root, _counts(dataset, samples), tuple(found))


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
            parts.append("\n".join([f"### {title}", *(f"- {kind} ({kinds[kind]}): {first[kind]}" for kind in kinds)]))
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


def check_dataset(dataset: Dataset) -> None:
    """Hold a dataset adapter to its contract; each broken rule is an AssertionError that names the sample.

    Checks: there are test samples; a second scan gives the same list; sample names are unique and independent of the
    machine; labels, defects and masks agree with each other and with the card; and no image is opened on the way.
    """
    again = copy.copy(dataset)
    again.__dict__.pop("_samples", None)  # what the first scan found
    opened: list[Path] = []
    original = Image.open

    def watched(file: object, *arguments: object, **options: object) -> Image.Image:
        opened.append(Path(str(file)))
        return original(file, *arguments, **options)  # type: ignore[arg-type]  # whatever it was called with

    with mock.patch.object(Image, "open", watched):
        samples = _all_samples(again)
    assert samples, f"{dataset.name} has no categories with test samples"
    assert samples == _all_samples(dataset), f"{dataset.name}: a second scan gives other samples or another order"
    names = [dataset.sample_id(sample) for sample in samples]
    assert len(set(names)) == len(names), f"{dataset.name} yields {Counter(names).most_common(1)[0][0]} more than once"
    read = {sample.image for sample in samples} & set(opened)
    assert not read, f"{dataset.name} opens images while it scans, for example {min(read)}; masks may be, for labels"
    for sample, name in zip(samples, names, strict=True):
        _check_sample(dataset, sample, name)


def _check_sample(dataset: Dataset, sample: Sample, name: str) -> None:
    assert sample.label in (0, 1), f"{name} has label {sample.label!r}; expected 0 or 1"
    assert not Path(name).is_absolute(), f"{name} lies outside the root {dataset.root}: no stable name"
    assert sample.image.is_file(), f"{name} does not exist"
    assert all(mask.is_file() for mask in sample.masks), f"{name} has a mask that does not exist"
    assert sample.label or not sample.defect, f"{name} is normal, but has the defect {sample.defect!r}"
    if sample.split == "test":
        expected = dataset.card.pixel_level and sample.label == 1
        assert sample.masks or not expected, f"{name} is anomalous, but has no mask although the card says pixel_level"
        assert dataset.card.pixel_level or not sample.masks, f"{name} has a mask although the card denies pixel_level"


def _all_samples(dataset: Dataset) -> list[Sample]:
    """Return test and train samples of every category that has test samples. Raises DataError."""
    return [
        sample
        for category in dataset.categories()
        for sample in dataset.samples(category.name) + dataset.samples(category.name, "train")
    ]


def _inspect(dataset: Dataset, sample: Sample) -> _File:
    """Read one image and its masks to the last pixel."""
    name, findings, digest = dataset.sample_id(sample), list[Finding](), ""
    try:
        digest = hashlib.sha256(sample.image.read_bytes() + repr(sample.crop).encode()).hexdigest()
        size = decode_image(sample.image).shape[:2]
        findings += _suffix(sample.image) + _link(sample.image, dataset.root)
    except (DataError, OSError) as error:
        return _File(name, sample.label, digest, (Finding("unreadable image", str(error), True),))
    if dataset.card.pixel_level and (sample.masks or (sample.label == 1 and sample.split == "test")):
        try:
            findings += _inspect_masks(dataset, sample, name, size)
        except DataError as error:
            findings.append(Finding("wrong mask", str(error), True))
    return _File(name, sample.label, digest, tuple(findings))


def _inspect_masks(dataset: Dataset, sample: Sample, name: str, size: tuple[int, int]) -> list[Finding]:
    rule = dataset.card.mask_rule
    findings = []
    if sample.label == 1 and not read_mask(sample, rule, size).any():
        findings.append(Finding("empty mask", f"{name} is anomalous, but its mask marks nothing.", True))
    elif sample.label == 0:
        read_mask(sample, rule, size)
    for path in sample.masks:
        findings += _suffix(path)
        values = raw_mask(path, rule)
        between = values[(values > 0) & (values < np.iinfo(values.dtype).max)]
        if rule == "gt127" and between.size:
            share = between.size / max(int(foreground(values, rule).sum()), 1)
            text = (
                f"{path} has values between black and white, {share:.1%} as many as foreground pixels: {rule} decides."
            )
            findings.append(Finding("unexpected mask values", text, False))
        elif rule != "gt127" and read_header(path)[2] == "JPEG":
            text = f"{path} is a JPEG, whose noise counts as defect under the rule {rule}; expected a lossless file."
            findings.append(Finding("unexpected mask values", text, False))
    return findings


def _suffix(path: Path) -> list[Finding]:
    content = read_header(path)[2]
    if path.suffix.lower() in SUFFIXES.get(content, (path.suffix.lower(),)):
        return []
    return [Finding(f"{path.suffix} files that hold {content}", f"{path} is read by its content.", False)]


def _link(path: Path, root: Path) -> list[Finding]:
    target = Path(os.path.realpath(path))
    if target.is_relative_to(os.path.realpath(root)):
        return []
    return [Finding("links that lead outside", f"{path} is read from {target}.", False)]


def _duplicates(files: Iterable[_File]) -> list[Finding]:
    """Return one finding for each group of byte-identical images; a problem if their labels differ."""
    groups: dict[str, list[_File]] = {}
    for file in files:
        if file.digest:
            groups.setdefault(file.digest, []).append(file)
    findings = []
    for group in groups.values():
        if len(group) > 1:
            wrong = len({file.label for file in group}) > 1
            kind = "identical images with different labels" if wrong else "identical images"
            findings.append(Finding(kind, f"{' = '.join(file.name for file in group)}.", wrong))
    return findings


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
