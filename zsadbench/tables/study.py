"""A study as a table: for every row a line of measured numbers, and below it the line that the paper printed.

Every line says where its numbers come from. Measured and published numbers never share a cell, because a study often
runs on another dataset or encoder than the paper's; a note then says that they cannot be compared, and why.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from zsadbench import datasets, metrics
from zsadbench.analysis.rows import Line, Name, Table, arrange, identity
from zsadbench.datasets import DatasetCard
from zsadbench.errors import RecordError, UnknownName
from zsadbench.metrics import Column
from zsadbench.records import published
from zsadbench.records.published import Number
from zsadbench.records.results import MEAN, Record
from zsadbench.running.studies import Study, StudyJob, StudyRun, printed
from zsadbench.tables import sheet, words
from zsadbench.tables.sheet import FORMATS, Sheet


class Entry(NamedTuple):
    """One line of a study's table."""

    row: str
    kind: Literal["measured", "published"]
    dataset: str  # zsadbench's name
    encoder: str
    category: str
    values: Mapping[Column, float | None]  # percent; None: undefined. A published line lacks what is not printed
    told: str  # where the numbers come from, in words
    problem: str = ""  # why a measured line has no numbers


class Result(NamedTuple):
    """A row on a dataset with its results."""

    job: StudyJob
    records: list[Record]
    table: Table


def render(run: StudyRun, format: str = "md") -> str:
    """Return a study's table as text in a format: "md", "latex" or "csv" (one number a line, every digit).

    Raises UnknownName for another format, RecordError where there are no results.
    """
    if format not in FORMATS:
        raise UnknownName("table format", format, FORMATS)
    cards = {listing.name: listing.card for listing in datasets.available() if listing.card}
    study, found = run.study, [_collect(run, job, cards) for job in run.jobs]
    numbers = published.load()
    entries = [entry for result in found for entry in _entries(study, result, numbers, cards)]
    if format == "csv":
        return _csv(study, entries)
    table = _sheet(study, entries)
    return (sheet.latex if format == "latex" else sheet.markdown)([table], list(_notes(study, found)))


def render_list(studies: Sequence[Study]) -> str:
    """Return the studies as an aligned table."""
    head = ["name", "title", "dataset", "rows"]
    body = []
    for study in studies:
        places = dict.fromkeys(row.dataset for row in study.rows)
        body.append([study.name, study.title, ", ".join(places), len(study.rows)])
    return sheet.plain(head, body)


def differences(result: Result) -> list[str]:
    """Return why a row's numbers must not be compared with the published ones; none where they may be."""
    job, line, found = result.job, result.table.lines[-1], []
    limits = [record.protocol["limit"] for record in result.records if record.protocol.get("limit") is not None]
    if job.dataset != job.row.dataset:
        found.append(f"dataset {job.dataset} instead of {job.row.dataset}")
    if line.status == "done" and _encoder(result) != job.paper_encoder:
        found.append(f"encoder {_encoder(result)} instead of {job.paper_encoder}")
    if limits:
        found.append(f"at most {limits[0]} images a category")
    if len(line.done) < line.total:
        found.append(f"{len(line.done)} of {line.total} categories")
    return found


def _collect(run: StudyRun, job: StudyJob, cards: Mapping[str, DatasetCard]) -> Result:
    records = run.records(job)
    if not records:
        raise RecordError(f"study {run.study.name}, row {job.row.label!r}: there are no results in {run.request.out}.")
    level: Literal["category", "dataset"] = "category" if run.study.level == "category" else "dataset"
    return Result(job, records, arrange(records, level, cards, None)[0])


def _entries(study: Study, result: Result, numbers: Sequence[Number], cards: Mapping[str, DatasetCard]) -> list[Entry]:
    """Return the lines of one row: published numbers under measured ones of the same category of the same dataset.

    On another dataset they come after all measured ones, because categories of equal names are not equal data.
    """
    row, measured = result.job.row, [_measured(result, line) for line in result.table.lines]
    values: dict[str, dict[Column, float]] = {}
    for number in printed(study, row, numbers):
        if number.category == MEAN or study.level == "category":
            values.setdefault(number.category, {})[number.level, number.metric] = number.value
    told = f"published for {cards[row.dataset].title if row.dataset in cards else row.dataset}"
    ours = [
        Entry(row.label, "published", row.dataset, result.job.paper_encoder, category, found, told)
        for category, found in values.items()
    ]
    same = result.table.dataset == row.dataset
    return sorted(
        [*measured, *ours],
        key=lambda entry: ("" if same else entry.kind, entry.category == MEAN, entry.category, entry.kind),
    )


def _measured(result: Result, line: Line) -> Entry:
    told = " ".join([f"measured on {result.table.title}", *words.marks(line)])
    problem = "" if line.status == "done" else words.STATUSES[line.status]
    values = {column: value.percent for column, value in line.values.items()}
    return Entry(
        result.job.row.label, "measured", result.table.dataset, _encoder(result), line.category, values, told, problem
    )


def _encoder(result: Result) -> str:
    """Return the SPEC that a row was measured with; "" where nothing was measured."""
    return next((record.encoder.get("spec") or "" for record in result.records if record.status == "done"), "")


def _sheet(study: Study, entries: Sequence[Entry]) -> Sheet:
    """Return the study's sheet; what the line above says is not repeated."""
    by_category = study.level == "category"
    texts = ("Row", *(["Category"] if by_category else []), "Numbers")
    columns = metrics.columns()
    lines = []
    before: Entry | None = None
    for entry in entries:
        row = "" if before and before.row == entry.row else entry.row
        category = "" if before and not row and before.category == entry.category else entry.category
        numbers = [words.percent(entry.values.get(column), column[1]) for column in columns]
        if entry.problem:
            numbers[0] = entry.problem
        lines.append(sheet.row([row, *([words.category(category)] if by_category else []), entry.told, *numbers]))
        before = entry
    return Sheet(study.title, (*texts, *map(words.label, columns)), len(texts), tuple(lines))


def _notes(study: Study, results: Sequence[Result]) -> Iterator[str]:
    reasons: dict[tuple[str, ...], list[str]] = {}
    for result in results if study.source else ():
        reasons.setdefault(tuple(differences(result)), []).append(result.job.row.label)
    for found, labels in reasons.items():
        whose = "" if len(reasons) == 1 else f" of {', '.join(labels)}"
        if found:
            yield f"Not comparable: the measured numbers{whose} have {', '.join(found)}."
        else:
            yield f"The measured numbers{whose} have the paper's dataset and encoder."
    records = [record for result in results for record in result.records]
    yield from words.notes([result.table for result in results], records, _names(results), None)
    if study.source:
        yield f"Published: {published.citations()[study.source]}, table {study.table}, as printed."
    if study.notes:
        yield study.notes
    for result in results:
        yield from (f"{result.job.row.label}: {reason}" for reason in words.notes_below(result.table, result.records))


def _names(results: Sequence[Result]) -> dict[tuple[str, str], Name]:
    """Return what records are called: the labels of their rows, of which several may be one configuration."""
    labels: dict[tuple[str, str], dict[str, None]] = {}
    for result in results:
        for record in result.records:
            labels.setdefault(identity(record), {})[result.job.row.label] = None
    titles = {key: ", ".join(found) for key, found in labels.items()}
    return {key: Name(title, title) for key, title in titles.items()}


def _csv(study: Study, entries: Sequence[Entry]) -> str:
    head = ["study", "row", "kind", "dataset", "encoder", "category", "level", "metric", "value"]
    return sheet.tidy_csv(
        head,
        (
            (
                study.name,
                entry.row,
                entry.kind,
                entry.dataset,
                entry.encoder,
                words.category(entry.category),
                *column,
                value,
            )
            for entry in entries
            for column, value in entry.values.items()
        ),
    )
