"""Whether a data set still holds the images that a run measured under its name."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from zsadbench.data import sampling
from zsadbench.datasets import Dataset
from zsadbench.errors import RecordError, UsageError
from zsadbench.protocol import EvaluationProtocol
from zsadbench.records import places, results
from zsadbench.records.results import Record
from zsadbench.running import targets


def holds(dataset: Dataset, record: Record) -> bool:
    """Return whether a data set holds the images and masks, down to the bytes of their files, of a finished record."""
    if record.category not in {category.name for category in dataset.categories()}:
        return False
    options = {
        field.name: record.protocol[field.name] for field in fields(EvaluationProtocol) if field.name in record.protocol
    }
    samples = sampling.test_samples(dataset, record.category, EvaluationProtocol(**options))
    found = targets.identity(dataset, samples, targets.read([(dataset, samples)]))
    return all(record.data[name] == value for name, value in found.items() if name in record.data)


def refuse_another(run: Path, dataset: Dataset) -> None:
    """Raise UsageError where a run has measured another data set, which lies elsewhere, under the same name.

    A data set that was moved or copied is the same, and so is one that was corrected in its place.
    """
    place = places.read(run, dataset.name)
    if place is None or place.is_of(dataset):
        return
    seen = set()
    for path in sorted((run / dataset.name).glob("*/*.json")):
        record = _finished(path)
        if record is None or str(record.data) in seen:
            continue
        seen.add(str(record.data))
        if not holds(dataset, record):
            raise UsageError(
                f"{run} has results of {dataset.name} that were measured on {place.path}, and {dataset.folder} holds "
                f"other images ({record.category}). {targets.apart(dataset)}"
            )


def _finished(path: Path) -> Record | None:
    try:
        record = results.load(path)
    except RecordError:
        return None  # damaged: the plan measures it again
    return record if record.status == "done" else None
