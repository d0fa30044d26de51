"""The images that a request names: data sets, their categories, and which files with which content are measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from zsadbench.data import contents, sampling
from zsadbench.datasets import Category, Dataset, Sample
from zsadbench.errors import DataError
from zsadbench.running.request import Request


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
