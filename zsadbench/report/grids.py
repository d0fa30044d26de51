"""The tables of a report as plain texts; the page makes them sortable and escapes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from zsadbench.analysis.rows import Line, Name, Table
from zsadbench.figures.map_samples import ranking_errors
from zsadbench.metrics import Column
from zsadbench.records.record import ImageScore
from zsadbench.records.results import Record
from zsadbench.tables import quality, words
from zsadbench.tables.sheet import DASH

MOST_WRONG = 10  # samples of a category


class GridCell(NamedTuple):
    """One cell: its text, the number that it is sorted by (None: sorted by text), and what is added in small."""

    text: str
    order: float | None = None
    small: str = ""
    rank: int = 0  # 1 best, 2 second


class Grid(NamedTuple):
    """A table: header and rows of equal length."""

    head: tuple[str, ...]
    rows: tuple[tuple[GridCell, ...], ...]


def results(table: Table, lines: Sequence[Line]) -> Grid:
    """Return some rows of a table, with intervals where the values have them."""
    rows = []
    for line in lines:
        texts = " ".join([words.title_of(line), *words.marks(line)]), line.setting, line.trained_on
        if line.status == "done":
            numbers = [_number(line, column) for column in table.columns]
        else:
            numbers = [GridCell(words.STATUSES[line.status])] + [GridCell(DASH)] * (len(table.columns) - 1)
        rows.append((*(GridCell(text or DASH) for text in texts), *numbers))
    return Grid(("Method", "Setting", "Trained on", *map(words.title, table.columns)), tuple(rows))


def differences(first: Iterable[Table], second: Iterable[Table]) -> Grid:
    """Return every number that two runs share, and the second's minus the first's, in percent points."""
    others = {(table.dataset, line.name.cli): line for table in second for line in table.lines}
    rows = []
    for table in first:
        for line in table.lines:
            other = others.get((table.dataset, line.name.cli))
            for column in table.columns if other else ():
                a, b = (_percent(one, column) for one in (line, other) if one)
                if a is not None and b is not None:
                    values = (
                        GridCell(words.percent(a), a),
                        GridCell(words.percent(b), b),
                        GridCell(f"{b - a:+z.2f}", b - a),
                    )
                    rows.append(
                        (GridCell(table.title), GridCell(line.name.title), GridCell(words.title(column)), *values)
                    )
    return Grid(("Dataset", "Method", "Metric", "This run", "Other run", "Difference"), tuple(rows))


def most_wrong(scores: Mapping[str, Sequence[ImageScore]]) -> Grid:
    """Return the samples that methods (printed name -> scores) rank most wrongly, on average. Raises UsageError."""
    errors = {title: ranking_errors(lines) for title, lines in scores.items()}
    rows = []
    for line in next(iter(scores.values())):
        own = [error[line.sample] for error in errors.values()]
        shares = [GridCell(f"{100 * share:.0f}", share) for share in (sum(own) / len(own), *own)]
        rows.append(
            (GridCell(line.sample), GridCell((line.defect or "anomalous") if line.label else "normal"), *shares)
        )
    rows.sort(key=lambda row: (-(row[2].order or 0), row[0].text))
    return Grid(("Sample", "Defect", "Mean", *errors), tuple(rows[:MOST_WRONG]))


def methods(records: Iterable[Record], names: Mapping[str, Name]) -> Grid:
    """Return what each row of the tables was made with: options, encoder, hashes, versions, device."""
    rows: dict[str, tuple[GridCell, ...]] = {}
    for record in records:
        encoder, environment = record.encoder, record.environment
        versions = ", ".join(f"{name} {value}" for name, value in environment.items() if name != "device")
        title = names[record.fingerprint].title
        rows[title] = tuple(
            GridCell(text or DASH)
            for text in (
                title,
                ", ".join(f"{name}={value}" for name, value in record.options.items()),
                ", ".join(str(encoder[name]) for name in ("spec", "size", "precision") if encoder.get(name)),
                encoder.get("sha256", ""),
                record.setting.get("checkpoint_sha256", ""),
                environment.get("device", ""),
                versions,
            )
        )
    head = "Method", "Options", "Encoder", "Weights (sha256)", "Checkpoint (sha256)", "Device", "Versions"
    return Grid(head, tuple(rows.values()))


def data(records: Iterable[Record]) -> Grid:
    """Return the images of each category: how many, and the hash of their list."""
    rows = {
        (record.dataset, record.category): (
            GridCell(record.dataset),
            GridCell(record.category),
            GridCell(str(record.data["samples"]), record.data["samples"]),
            GridCell(record.data["sha256"]),
        )
        for record in records
    }
    return Grid(("Dataset", "Category", "Images", "Sample list (sha256)"), tuple(rows.values()))


def _percent(line: Line, column: Column) -> float | None:
    value = line.values.get(column)
    return value.percent if value else None


def _number(line: Line, column: Column) -> GridCell:
    cell = quality.number(line, column)
    interval = f"[{', '.join(cell.interval)}]" if cell.interval else ""
    behind = " ".join(filter(None, [interval, *cell.small, cell.after]))
    return GridCell(cell.text, line.values[column].percent, behind, cell.rank)
