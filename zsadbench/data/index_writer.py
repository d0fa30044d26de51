"""`zsadbench data index`: the sample list of a dataset as JSON lines, for other tools and for comparing copies."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zsadbench.datasets import Dataset, Sample
from zsadbench.errors import UsageError
from zsadbench.support.files import write_atomically


def rows(dataset: Dataset) -> Iterator[dict[str, Any]]:
    """Yield one JSON object a sample, test before train in each category; reads no image.

    Paths are relative to the dataset's root, so that two copies of a dataset give the same rows. `mask` is null, a path
    or a list of paths; `samples_sha256` is the hash of the sample's category and split, as runs without --limit use it.
    The names are those of our own index files: `folder=INDEX --data-root ROOT` reads the list back, parts of images,
    united masks and the masks' rule included.
    """
    for category in dataset.categories():
        for split in ("test", "train"):
            samples = dataset.samples(category.name, split)
            digest = dataset.samples_sha256(samples)
            for sample in samples:
                yield {**_row(dataset, sample), "samples_sha256": digest}


def write(dataset: Dataset, out: Path) -> int:
    """Write the rows to a new file outside the dataset; returns how many there are. Raises UsageError."""
    whole = out.resolve()
    for folder in (dataset.root.resolve(), dataset.folder.resolve()):
        if whole.is_relative_to(folder):
            raise UsageError(
                f"--out {out} lies in the dataset's own folder {folder}; expected a place outside your data."
            )
    if whole.exists():
        raise UsageError(f"--out {out} already exists; expected a new file. Remove it or choose another name.")
    lines = [json.dumps(row) for row in rows(dataset)]
    write_atomically(whole, "\n".join(lines) + "\n")
    return len(lines)


def _row(dataset: Dataset, sample: Sample) -> dict[str, Any]:
    masks = [_below(mask, dataset.root) for mask in sample.masks]
    row: dict[str, Any] = {
        "id": dataset.sample_id(sample),
        "image": _below(sample.image, dataset.root),
        "mask": masks if len(masks) > 1 else masks[0] if masks else None,
        "label": sample.label,
        "category": sample.category,
        "defect": sample.defect,
        "split": sample.split,
        "mask_rule": dataset.card.mask_rule,
    }
    if dataset.card.value_range is not None:
        row["value_range"] = dataset.card.value_range
    return row if sample.crop is None else {**row, "crop": sample.crop}


def _below(path: Path, root: Path) -> str:
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()
