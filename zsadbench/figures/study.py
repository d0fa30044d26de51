"""A study as a figure: one panel a metric, the swept option along it, measured and published numbers as series.

Numbers that were measured on the paper's dataset share its panels; those of any other dataset have panels and a scale
of their own, because they cannot be compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from zsadbench.analysis.rows import arrange
from zsadbench.errors import RecordError
from zsadbench.figures.sweep import Point, Sweep, cards, merge
from zsadbench.records import published, results
from zsadbench.records.results import MEAN, Record
from zsadbench.running import studies
from zsadbench.running.studies import Study, StudyRow

PAPER = ""  # the block of the paper's own dataset


def collect(study: Study, folder: Path) -> Sweep:
    """Read a study's records below its run folder, and the published numbers. Raises RecordError without records."""
    records = results.load_run(folder) if folder.is_dir() else []
    measured = merge(_measured(study, ((row, _of_row(row, records)) for row in study.rows)))
    if not measured:
        raise RecordError(f"{folder} has no finished cell of study {study.name}; run `zsadbench study {study.name}`.")
    series = [*measured, *merge(_published(study))]
    if study.level == "category":
        found = {position for one in series for position, _ in one.values}
        return Sweep(study.title, tuple(sorted(found, key=lambda name: (name == MEAN, name))), "", (), tuple(series))
    option, numbers = swept(study.rows)
    return Sweep(study.title, tuple(row.label for row in study.rows), option, numbers, tuple(series))


def _of_row(row: StudyRow, records: Iterable[Record]) -> list[Record]:
    """Return the records of a row, with its own encoder or one that replaced it."""
    return [
        record
        for record in records
        if record.method in (studies.name(row, record.dataset), studies.name(row, record.dataset, "another"))
    ]


def swept(rows: Sequence[StudyRow]) -> tuple[str, tuple[float, ...]]:
    """Return (name, values) of the one numeric option in which rows differ, or ("", ()) where they differ otherwise."""
    names = {name for row in rows for name in row.options}
    different = [name for name in names if len({row.options.get(name) for row in rows}) > 1]
    if len(different) != 1 or len({(row.method, row.dataset, row.encoder) for row in rows}) > 1:
        return "", ()
    try:
        return different[0].rstrip("_"), tuple(float(row.options[different[0]]) for row in rows)
    except (KeyError, ValueError):
        return "", ()


def _measured(study: Study, runs: Iterable[tuple[StudyRow, Sequence[Record]]]) -> Iterator[Point]:
    for row, records in runs:
        for table in arrange(records, "category" if study.level == "category" else "dataset", cards(), None):
            specs = {record.encoder.get("spec") for record in records if record.dataset == table.dataset}
            encoder = ", ".join(sorted(spec for spec in specs if spec))
            paper = table.dataset == row.dataset
            place = "the paper's data" if paper else table.title
            told = f"measured on {place}{f', encoder {encoder}' if encoder else ''}"
            for line in table.lines:
                position = line.category if study.level == "category" else row.label
                for column, value in line.values.items():
                    yield Point(told, PAPER if paper else table.title, position, column, value.percent)


def _published(study: Study) -> Iterator[Point]:
    numbers, titles = published.load(), {name: card.title for name, card in cards().items()}
    told = f"published for {', '.join(dict.fromkeys(titles.get(row.dataset, row.dataset) for row in study.rows))}"
    for row in study.rows:
        for number in studies.printed(study, row, numbers):
            if number.category == MEAN or study.level == "category":
                position = number.category if study.level == "category" else row.label
                yield Point(told, PAPER, position, (number.level, number.metric), number.value)
