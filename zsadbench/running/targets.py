"""The images that a request names: data sets, their categories, and which files with which content are measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from zsadbench import datasets
from zsadbench.data import contents, sampling
from zsadbench.datasets import Category, Dataset, Sample
from zsadbench.errors import DataError, UsageError
from zsadbench.records import places
from zsadbench.running.request import Request
from zsadbench.support import plugins, variants


class References(NamedTuple):
    """Normal images of the train split that a few-shot method is given, or why there are none."""

    samples: tuple[Sample, ...] = ()
    problem: DataError | None = None


@dataclass(frozen=True, eq=False)  # each is its own
class Target:
    """The test images of one category, in the order of the run."""

    dataset: Dataset
    category: Category
    samples: tuple[Sample, ...]

    def draw_references(self, shots: int, seed: int) -> References:
        """Return the reference images of a few-shot method; none for 0 shots."""
        try:
            return References(sampling.references(self.dataset, self.category.name, shots, seed) if shots else ())
        except DataError as error:
            return References(problem=error)


def sets(request: Request) -> list[Dataset]:
    """Return the data sets that a request names, verifying their folders; neither methods nor torch are imported.

    Raises UnknownName, also for a method, UsageError for two data sets of one name, or DataError.
    """
    for name in request.methods:
        if name != "all":
            plugins.source_file("zsadbench.methods", variants.stem_of(name))  # a wrong name is told before a folder
    found: dict[str, Dataset] = {}
    for name in request.datasets:
        dataset = datasets.create(name, request.data_root)
        other = found.setdefault(dataset.name.casefold(), dataset)  # their folders are one in many file systems
        if other is not dataset and not places.of(other).is_of(dataset):
            raise UsageError(
                f"{other.folder} and {dataset.folder} would both be filed under {dataset.name}. {apart(dataset)}"
            )
    return list(found.values())


def apart(dataset: Dataset) -> str:
    """Return the sentence that says how a data set is kept apart from another of its name."""
    if not dataset.own:
        return "Give it another --out."
    options = dataset.name.removesuffix(dataset.card.title)  # "folder.gt0."
    return f"Give it a name of its own, --datasets {options}NAME={dataset.folder}, or another --out."


def of(dataset: Dataset, request: Request) -> list[Target]:
    """Return what a request names of a data set: its categories, or those of the wanted ones that it has."""
    return [
        Target(dataset, one, sampling.test_samples(dataset, one.name, request.protocol))
        for one in dataset.categories()
        if not request.categories or one.name in request.categories
    ]


def read(
    lists: Iterable[tuple[Dataset, Sequence[Sample]]], progress: contents.Progress | None = None
) -> dict[Path, str]:
    """Return the digest of every image and mask file of some sample lists."""
    paths: dict[Path, list[Path]] = {}
    for dataset, samples in lists:
        paths.setdefault(dataset.root, []).extend(contents.files_of(samples))
    return {
        path: digest for root, own in paths.items() for path, digest in contents.digests(root, own, progress).items()
    }


def identity(dataset: Dataset, samples: Sequence[Sample], known: Mapping[Path, str]) -> dict[str, Any]:
    """Return what a record says of its images: how they are read, how many, hashes of their list and of the files."""
    return {
        "reading": ", ".join(f"{name} {getattr(dataset.card, name)}" for name in ("mask_rule", "value_range", "exif")),
        "samples": len(samples),
        "sha256": dataset.samples_sha256(samples),
        "content_sha256": contents.sha256(samples, known),
    }
