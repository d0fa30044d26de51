"""Tables of results as Markdown, LaTeX and tidy CSV. Nothing is evaluated here; rounding happens in the printing alone.

Markdown has one table per dataset: with seven metrics a second dataset beside it would fit neither a terminal nor a
README. LaTeX sets two datasets side by side, as papers do (`zsadbench.tables.latex`). All values are percent, with one
decimal; CSV has every digit. Published numbers stand in brackets beside measured ones and are never ranked or averaged.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from tabulate import tabulate

from zsadbench import datasets
from zsadbench.analysis.rows import MEAN, Column, Level, Line, Table, Value, arrange, name_methods, settle
from zsadbench.analysis.seeds import over_seeds
from zsadbench.datasets import DatasetCard
from zsadbench.errors import RecordError, UnknownName
from zsadbench.records.published import Library
from zsadbench.records.results import Record
from zsadbench.tables import latex, words

if TYPE_CHECKING:
    from zsadbench.analysis.intervals import Resamples

FORMATS = ("md", "latex", "csv")
LEVELS = ("dataset", "category")


class Row(NamedTuple):
    """One number of the tidy table: a line of the CSV format."""

    method: str  # CLI name, with what tells it from another row of that name
    dataset: str
    category: str  # "mean": the dataset
    level: str  # "image" or "pixel"
    metric: str
    value: float | None  # percent, unrounded; None: undefined
    n_defined: int  # categories in the mean
    n_total: int  # categories of the dataset; 1 in a category's own row
    setting: str
    trained_on: str  # "" for training-free methods
    published: float | None  # percent, as printed
    source: str  # of the published number: "file: table"
    low: float | None = None  # the ends of the 95 % interval of --ci, percent
    high: float | None = None
    std: float | None = None  # sample standard deviation over the seeds of --seeds, percent points
    n_seeds: int = 1


def rows(
    records: Iterable[Record],
    level: Level = "category",
    *,
    cards: Mapping[str, DatasetCard] | None = None,
    library: Library | None = None,
) -> list[Row]:
    """Return the numbers of some records: of each category (at that level) and of each dataset. Raises RecordError."""
    return _tidy(arrange(settle(records), level, _shipped_cards() if cards is None else cards, library))


def render(
    records: Iterable[Record],
    format: str = "md",
    level: Level = "dataset",
    published: bool = False,
    *,
    cards: Mapping[str, DatasetCard] | None = None,
    library: Library | None = None,
    resamples: Resamples | None = None,
    seeds: bool = False,
) -> str:
    """Return the tables of some records as text in a format: "md", "latex" or "csv".

    `cards` maps dataset names to cards, for printed names and complete category lists (by default those of all dataset
    plugins); a dataset without a card is taken to have the categories of its records. `published` adds the papers'
    numbers (from `library`, by default the shipped ones), `resamples` of the records' runs bootstrap intervals. With
    `seeds` runs that differ in their seed alone become rows of means and deviations. Raises RecordError when the
    records must not share a table or lack what is asked for, UnknownName for a format or level.
    """
    if format not in FORMATS:
        raise UnknownName("table format", format, FORMATS)
    if level not in LEVELS:
        raise UnknownName("table level", level, LEVELS)
    records = settle(records)
    if not records:
        raise RecordError("there are no results to print; run `zsadbench run` first, or name its --out folder.")
    library = (library or Library.read()) if published else None
    cards = _shipped_cards() if cards is None else cards
    tables = (over_seeds if seeds else arrange)(records, level, cards, library)
    if resamples is not None:
        tables = resamples.beside(tables, records)
    if format == "csv":
        optional = [*(("low", "high") if resamples is not None else ()), *(("std", "n_seeds") if seeds else ())]
        return _csv(_tidy(tables), optional)
    below = [words.notes_below(table, records) for table in tables]
    notes = words.notes(tables, records, name_methods(records), library)
    if resamples is not None:
        notes.insert(1, resamples.note())
    return (latex.render if format == "latex" else _markdown)(tables, below, notes)


def _shipped_cards() -> dict[str, DatasetCard]:
    return {listing.name: listing.card for listing in datasets.available() if listing.card}


def _tidy(tables: Iterable[Table]) -> list[Row]:
    return [
        _row(table, line, column, value)
        for table in tables
        for line in table.lines
        for column, value in line.values.items()
    ]


def _row(table: Table, line: Line, column: Column, value: Value) -> Row:
    number = value.published
    return Row(
        line.name.cli,
        table.dataset,
        line.category,
        *column,
        value.percent,
        len(value.covered),
        line.total,
        line.setting,
        line.trained_on,
        number.value if number else None,
        f"{number.source}: {number.table}" if number else "",
        low=value.interval[0] if value.interval else None,
        high=value.interval[1] if value.interval else None,
        std=value.deviation,
        n_seeds=value.seeds,
    )


def _csv(numbers: Iterable[Row], optional: Sequence[str]) -> str:
    fields = [name for name in Row._fields if name not in Row._field_defaults or name in optional]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(fields)
    writer.writerows(
        [getattr(number, name) for name in fields] for number in numbers
    )  # None becomes an empty field, a float its shortest exact form
    return text.getvalue()


def _markdown(tables: Sequence[Table], below: Sequence[list[str]], notes: Sequence[str]) -> str:
    parts = []
    for table, reasons in zip(tables, below, strict=True):
        parts += [f"### {escape_markdown(table.title)}", _markdown_table(table)]
        if reasons:
            parts.append("\n".join(f"- {escape_markdown(reason)}" for reason in reasons))
    parts.append("\n".join(f"- {escape_markdown(note)}" for note in notes))
    return "\n\n".join(parts) + "\n"


def _markdown_table(table: Table) -> str:
    by_category = any(line.category != MEAN for line in table.lines)
    text_columns = [*(["Category"] if by_category else []), "Method", "Setting", "Trained on"]
    labels = [f"{level} {words.LABELS.get(metric, escape_markdown(metric))}" for level, metric in table.columns]
    body = []
    for line in table.lines:
        texts = [
            *([line.category] if by_category else []),
            " ".join([line.name.title, *words.marks(line)]),
            line.setting or words.DASH,
        ]
        cells = [escape_markdown(text) for text in (*texts, line.trained_on or words.DASH)]
        body.append(cells + _numbers(table, line))
    sides = ("left",) * len(text_columns) + ("right",) * len(labels)
    return tabulate(body, [*text_columns, *labels], tablefmt="pipe", disable_numparse=True, colalign=sides)


def _numbers(table: Table, line: Line) -> list[str]:
    if line.status != "done":
        return [words.STATUSES[line.status]] + [words.DASH] * (len(table.columns) - 1)
    return [_number(line, line.values[column]) for column in table.columns]


def _number(line: Line, value: Value) -> str:
    marks = {1: ("**", "**"), 2: ("<u>", "</u>"), 0: ("", "")}[value.rank]
    parts = [words.percent(value.percent).join(marks)]
    if value.interval:
        parts.append(f"[{words.percent(value.interval[0])}, {words.percent(value.interval[1])}]")
    if value.deviation is not None:
        parts.append(f"± {words.percent(value.deviation)}")
    if words.gap(value, line):
        parts.append(f"[{words.gap(value, line)}]")
    if value.published:
        parts.append(f"({words.percent(value.published.value)})")
    return " ".join(parts)


def escape_markdown(text: str) -> str:
    """Escape what Markdown would read as markup; an underscore inside a word stays, because Markdown keeps it."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*|]|\](?=[(\[]))", r"\\\1", text)
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", " ".join(text.split()))
