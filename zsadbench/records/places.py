"""Where the data sets of a run lie on this machine: `RUN/DATASET/place.json`, beside the records and none of them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from zsadbench import datasets
from zsadbench.datasets import Dataset
from zsadbench.errors import DataError
from zsadbench.support import files


class Place(NamedTuple):
    """A data set's folder or index file as the user named it, and the folder where its samples' names start."""

    path: Path
    root: Path

    def is_of(self, dataset: Dataset) -> bool:
        """Return whether a data set lies here, links followed."""
        return list(map(os.path.realpath, self)) == [*map(os.path.realpath, (dataset.folder, dataset.root))]


def of(dataset: Dataset) -> Place:
    """Return where a data set lies; links are kept, because people move what they lead to."""
    return Place(dataset.folder.absolute(), dataset.root.absolute())


def write(run: Path, dataset: Dataset) -> None:
    """Note where a data set of a run lies. Raises RecordError when the disk is full."""
    place = {name: str(path) for name, path in of(dataset)._asdict().items()}
    files.write_atomically(_file(run, dataset.name), json.dumps(place, indent=1) + "\n")


def read(run: Path, dataset: str) -> Place | None:
    """Return where a data set lay when the run was made; None where that is not known."""
    try:
        place = json.loads(_file(run, dataset).read_text(encoding="utf-8"))
        return Place(Path(place["path"]), Path(place["root"]))
    except (OSError, ValueError, TypeError, KeyError):
        return None  # the file is a convenience: nothing is measured with it


def is_note(path: Path) -> bool:
    """Tell whether a file is such a note, and no record of a category that is called place."""
    return (
        path == _file(path.parent.parent, path.parent.name) and read(path.parent.parent, path.parent.name) is not None
    )


def find(runs: Iterable[Path], name: str, data_root: Path | None = None) -> Dataset:
    """Make the data set that some runs call by a name, or that of NAME=FOLDER.

    It is looked for where the first run that knows it had it, and then below the data root. Raises DataError saying
    where it was; also as `datasets.create`.
    """
    if "=" in name:
        return datasets.create(name, data_root)
    run, place = next(((run, place) for run in runs if (place := read(run, name))), (None, None))
    if place is None:
        return datasets.create(name, data_root)
    if place.path.exists():
        return datasets.create(f"{name}={place.path}", place.root)
    try:
        if datasets.is_own(name) and data_root is not None and (data_root / place.path.name).exists():
            return datasets.create(f"{name}={data_root / place.path.name}", data_root)
        return datasets.create(name, data_root)
    except DataError:
        raise DataError(
            f"{name} was {place.path} when {run} was made, and is not there now. Say where it is: "
            f"--dataset {name}=PATH, or --data-root with the folder that holds {place.path.name}."
        ) from None


def _file(run: Path, dataset: str) -> Path:
    return run / dataset / "place.json"
