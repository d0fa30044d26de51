"""The contract of datasets as an executable check."""

from __future__ import annotations

import copy
from collections import Counter
from pathlib import Path
from unittest import mock

from PIL import Image

from zsadbench.data.check import all_samples
from zsadbench.datasets import Dataset, Sample


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
        samples = all_samples(again)
    assert samples, f"{dataset.name} has no categories with test samples"
    assert samples == all_samples(dataset), f"{dataset.name}: a second scan gives other samples or another order"
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
