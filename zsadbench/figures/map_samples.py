"""Which cells and which samples a qualitative figure shows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from zsadbench.analysis.rows import check_protocols, identity, name_methods
from zsadbench.data import sampling
from zsadbench.datasets import Dataset, Sample
from zsadbench.errors import DataError, UnknownName, UsageError
from zsadbench.records import results
from zsadbench.records.record import ImageScore
from zsadbench.records.results import Record
from zsadbench.running import same_images
from zsadbench.support import variants

RULES = ("worst", "random", "first")


class Result(NamedTuple):
    """The finished cell of one method: its run, its record, the method's printed name, and its image scores."""

    run: Path
    record: Record
    title: str
    scores: list[ImageScore]


def finished(runs: Iterable[Path]) -> list[tuple[Path, Record]]:
    """Return the finished cells of some runs, each with its run. Raises RecordError."""
    return [(run, record) for run in runs for record in results.load_run(run) if record.status == "done"]


def place(done: Iterable[tuple[Path, Record]], dataset: str = "", category: str = "") -> tuple[str, str]:
    """Return dataset and category; "" stands for the only one that has results. Raises UnknownName, UsageError."""
    records = [record for _, record in done]
    dataset = only("dataset", dataset, {record.dataset for record in records})
    return dataset, only("category", category, {record.category for record in records if record.dataset == dataset})


def only(kind: str, name: str, known: set[str]) -> str:
    """Return the name if it is known; "" stands for the only one. Raises UnknownName, UsageError."""
    if name in known or (not name and len(known) == 1):
        return name or next(iter(known))
    if name:
        raise UnknownName(f"{kind} of the run", name, known)
    raise UsageError(f"--{kind} is missing; expected one with results: {', '.join(sorted(known)) or 'there is none'}.")


def find(done: Iterable[tuple[Path, Record]], dataset: str, category: str, methods: Sequence[str] = ()) -> list[Result]:
    """Return the finished cells of a category: of the named methods in that order, by default of all, by title.

    A bare name stands for every preset of a method. Raises UnknownName for a method that the runs lack, RecordError
    where two cells differ in protocol or images.
    """
    found = [(run, record) for run, record in done if (record.dataset, record.category) == (dataset, category)]
    check_protocols(record for _, record in found)
    titles = name_methods(record for _, record in found)
    cells = {identity(record): (run, record) for run, record in found}
    order = sorted(cells, key=lambda key: titles[key].title.lower())
    chosen = [key for name in methods for key in _named(name, order)] if methods else order
    return [Result(*cells[key], titles[key].title, results.load_scores(*cells[key])) for key in dict.fromkeys(chosen)]


def _named(name: str, keys: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    found = [key for key in keys if variants.is_called(key[0], name)]
    if not found:
        raise UnknownName("method of the run", name, {method for method, _ in keys})
    return found


def choose(found: Sequence[Result], dataset: Dataset, wanted: Sequence[str], count: int) -> list[Sample]:
    """Return the samples to show: those named, or `count` of them by one of the RULES.

    worst: those that the methods rank most wrongly by their image scores, on average over the methods. random: drawn
    from the protocol's seed, labels and defects keeping their shares. first: the first by name. Raises UnknownName for
    a sample that the run lacks, DataError for one that the dataset's folder lacks, UsageError for "worst" where only
    one label exists.
    """
    record, known = found[0].record, sorted(line.sample for line in found[0].scores)
    here = {dataset.sample_id(sample): sample for sample in dataset.samples(record.category)}
    lost = next((name for name in known if name not in here), None)
    if lost is not None:
        raise DataError(f"{lost} was in the run, but is not in {dataset.root}; expected the copy that the run used.")
    if not same_images.holds(dataset, record):
        raise DataError(
            f"{dataset.folder} holds other images or masks of {record.category} than the run measured; expected the "
            "copy that the run used, or run it again."
        )
    if list(wanted) == ["random"]:
        rng = sampling.generator(record.protocol["seed"], dataset.name, record.category, "figure")
        return list(sampling.stratified([here[name] for name in known], count, rng))
    if list(wanted) == ["worst"]:
        errors = [ranking_errors(result.scores) for result in found]
        known.sort(key=lambda name: -sum(error[name] for error in errors))  # equal ones stay sorted by name
    if len(wanted) == 1 and wanted[0] in RULES:
        return [here[name] for name in known[:count]]
    for name in wanted:
        if name not in known:
            raise UnknownName("sample of the run", name, [*known, *RULES])
    return [here[name] for name in wanted]


def ranking_errors(scores: Sequence[ImageScore]) -> dict[str, float]:
    """Return for each sample the share of images of the other label that it is ranked wrongly against, ties half.

    Over the anomalous samples its mean is 1 - AUROC. Raises UsageError where only one label exists.
    """
    values = {label: np.array([line.score for line in scores if line.label == label]) for label in (0, 1)}
    if not all(map(len, values.values())):
        raise UsageError("worst samples need normal and anomalous images; expected --samples random, first or names.")
    errors = {}
    for line in scores:
        margin = (line.score - values[1 - line.label]) * (1 if line.label else -1)
        errors[line.sample] = float(np.mean(margin < 0) + np.mean(margin == 0) / 2)
    return errors
