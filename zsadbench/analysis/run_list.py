"""Which runs lie in a folder, and how far each is."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from zsadbench import datasets
from zsadbench.errors import RecordError
from zsadbench.records import places, results, run_log


class ListedRun(NamedTuple):
    """A run folder and what its records say."""

    folder: str
    last: str  # when its newest record was written, by its log; "" where there is none
    methods: tuple[str, ...]
    datasets: tuple[str, ...]
    done: int  # cells
    failed: int  # cells without numbers, whatever the reason
    planned: int  # cells of these methods on all categories that the data sets have
    device: str  # of the newest line of the log


def below(folders: Iterable[Path]) -> list[Path]:
    """Return the run folders that some folders are or hold. Raises RecordError where one is and holds none."""
    found: dict[Path, None] = {}
    for folder in folders:
        if not folder.is_dir():
            raise RecordError(f"{folder} is not a run folder; expected the --out of an earlier `zsadbench run`.")
        runs = _below(folder)
        if not runs:
            parents = folder.absolute().parents[:2]  # of a data set, of a method
            around = next((one for one in parents if _is_run(one) and results.read_run(one)[0]), None)
            told = f"lies inside the run {around}; name that" if around else "holds no run; expected runs in it"
            raise RecordError(f"{folder} {told}, or the --out of an earlier `zsadbench run`.")
        found |= dict.fromkeys(runs)
    return list(found)


def list_runs(folder: Path) -> list[ListedRun]:
    """Return the runs in a folder, by name. Raises RecordError where there is none."""
    expected = {item.name: item.card.expected for item in datasets.available() if item.card}
    return [_listed(run, {name: set(categories) for name, categories in expected.items()}) for run in below([folder])]


def _listed(run: Path, known: dict[str, set[str]]) -> ListedRun:
    folders = results.folders(run)
    records = [(own, record) for own in folders for record in results.read_run(own)[0]]
    lines = [line for own in folders for line in run_log.read(own) if isinstance(line.get("time"), str)]
    newest = max(lines, key=lambda line: line["time"], default={})
    done = sum(record.status == "done" for _, record in records)
    categories = {name: set(names) for name, names in known.items()}
    for _, record in records:
        categories.setdefault(record.dataset, set()).add(record.category)
    rows = {(own, record.method, record.dataset) for own, record in records}
    return ListedRun(
        run.as_posix(),
        newest.get("time", ""),
        tuple(dict.fromkeys(record.method for _, record in records)),
        tuple(dict.fromkeys(record.dataset for _, record in records)),
        done,
        len(records) - done,
        sum(len(categories[dataset]) for _, _, dataset in rows),
        str(newest.get("device", "")),
    )


def _below(folder: Path) -> list[Path]:
    if _is_run(folder):
        return [folder]
    subs = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return [run for sub in subs for run in _below(sub)]


def _is_run(folder: Path) -> bool:
    """Tell whether a folder holds records, of one seed or of several; a data set's folder inside a run does not."""
    return any(
        path.parent.name != results.FAILED and not places.is_note(path)
        for own in results.folders(folder)
        for path in own.glob("*/*/*.json")
    )
