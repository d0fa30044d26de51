"""Tables of results as Markdown, LaTeX and tidy CSV. Nothing is evaluated here; rounding happens in the printing alone.

Markdown has one table per dataset: with seven metrics a second dataset beside it would fit neither a terminal nor a
README. LaTeX sets two datasets side by side, as papers do. All values are percent, with one decimal; CSV has every
digit. Published numbers stand in brackets beside measured ones and are never ranked or averaged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, NamedTuple

from zsadbench import datasets, metrics
from zsadbench.analysis import across
from zsadbench.analysis.rows import Level, Line, Name, Table, Value, arrange, name_methods, settle
from zsadbench.analysis.seeds import over_seeds
from zsadbench.datasets import DatasetCard
from zsadbench.errors import RecordError, UnknownName
from zsadbench.metrics import Column
from zsadbench.records.published import Library
from zsadbench.records.results import MEAN, Record
from zsadbench.tables import sheet, words
from zsadbench.tables.sheet import DASH, FORMATS, Cell, Sheet

if TYPE_CHECKING:
    from zsadbench.analysis.intervals import Resamples

LEVELS = ("dataset", "category")
SIDE_BY_SIDE = 2  # datasets; at seven metrics each, what a landscape page or a two-column spread holds


class Number(NamedTuple):
    """One number of the tidy table: a line of the CSV format."""

    method: str  # CLI name, with what tells it from another row of that name
    dataset: str
    category: str  # "mean": the dataset; a category of that name is "mean (category)"
    level: str  # "image" or "pixel"
    metric: str
    value: float | None  # percent, unrounded; None: undefined
    n_defined: int  # categories in the mean
    n_total: int  # categories of the dataset; 1 in a category's own row
    setting: str
    scope: str  # what numbers of this level depend on: "image", "batch" or "category"
    trained_on: str  # "" for training-free methods
    published: float | None  # percent, as printed
    source: str  # of the published number: "file: table"
    differs: str  # in what that number's configuration is another one, or may be
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
    seeds: bool = False,
) -> list[Number]:
    """Return the numbers of some records: of each category (at that level) and of each dataset. Raises RecordError.

    With `seeds`, runs that differ in their seed alone become means and deviations.
    """
    tables = over_seeds if seeds else arrange
    return _tidy(tables(settle(records), level, _shipped_cards() if cards is None else cards, library))


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
        fields = [name for name in Number._fields if name not in Number._field_defaults or name in optional]
        return sheet.tidy_csv(fields, ([getattr(row, name) for name in fields] for row in _tidy(tables)))
    below = {table.dataset: words.notes_below(table, records) for table in tables}
    notes = words.notes(tables, records, name_methods(records), library)
    if resamples is not None:
        notes.insert(1, resamples.note())
    if format == "latex":
        step = _tables_side_by_side(tables)
        blocks = [tables[start : start + step] for start in range(0, len(tables), step)]
        if step > 1:
            notes += across.notes(records)
        return sheet.latex([_spread(block, below, _shared_names(records)) for block in blocks], notes)
    return sheet.markdown([_single(table, below) for table in tables], notes)


def _shipped_cards() -> dict[str, DatasetCard]:
    return {listing.name: listing.card for listing in datasets.available() if listing.card}


def _tidy(tables: Iterable[Table]) -> list[Number]:
    return [
        _row(table, line, column, value)
        for table in tables
        for line in table.lines
        for column, value in line.values.items()
    ]


def _row(table: Table, line: Line, column: Column, value: Value) -> Number:
    number = value.published.number
    return Number(
        line.name.cli,
        table.dataset,
        words.category(line.category),
        *column,
        value.percent,
        len(value.covered),
        line.total,
        line.setting,
        line.image_scope if column[0] == "image" else line.scope,
        line.trained_on,
        number.value if number else None,
        f"{number.source}: {number.table}" if number else "",
        "; ".join(value.published.differs),
        low=value.interval[0] if value.interval else None,
        high=value.interval[1] if value.interval else None,
        std=value.deviation,
        n_seeds=value.seeds,
    )


def _single(table: Table, below: Mapping[str, Sequence[str]]) -> Sheet:
    """Return the sheet of one dataset."""
    texts = _text_columns([table])
    lines = [sheet.Row((*_texts(line, line.trained_on, texts), *_numbers(table, line))) for line in table.lines]
    head = (*texts, *map(words.label, table.columns))
    return Sheet(table.title, head, len(texts), tuple(lines), tuple(below[table.dataset]))


def _tables_side_by_side(tables: Sequence[Table]) -> int:
    """Return how many datasets LaTeX sets beside each other.

    With categories as rows, more than the measured number in the cells, or a mark at some row (a leak, lacking
    categories), each dataset has a table of its own: there is no room, and a mark must not be read as if it were about
    both.
    """
    lines = [line for table in tables for line in table.lines]
    wide = any(
        value.published.number or value.interval or value.deviation is not None
        for line in lines
        for value in line.values.values()
    )
    return 1 if wide or any(line.category != MEAN or words.marks(line) for line in lines) else SIDE_BY_SIDE


def _shared_names(records: Sequence[Record]) -> dict[Name, Name]:
    """Return what a row of one dataset is called where datasets stand side by side."""
    own, shared = name_methods(records), across.names(records)
    return {name: shared[key] for key, name in own.items()}


def _spread(tables: Sequence[Table], below: Mapping[str, Sequence[str]], shared: Mapping[Name, Name]) -> Sheet:
    """Return the sheet of datasets side by side, the image and pixel metrics of each under a rule."""
    if len(tables) > 1:
        tables = [_renamed(table, shared) for table in tables]
    texts = _text_columns(tables)
    blank = [("", 1)] * len(texts)
    titles = [(table.title, len(table.columns)) for table in tables]
    levels = [
        (level.capitalize(), sum(column[0] == level for column in table.columns))
        for table in tables
        for level in metrics.LEVELS
    ]
    head = (*texts, *(metrics.get(metric).title for table in tables for _, metric in table.columns))
    return Sheet(
        f"Anomaly detection on {' and '.join(table.title for table in tables)}",
        head,
        len(texts),
        tuple(_spread_rows(tables, texts)),
        tuple(note for table in tables for note in below[table.dataset]),
        ((*blank, *titles), (*blank, *levels)),
    )


def _renamed(table: Table, shared: Mapping[Name, Name]) -> Table:
    return replace(table, lines=tuple(replace(line, name=shared.get(line.name, line.name)) for line in table.lines))


def _spread_rows(tables: Sequence[Table], texts: Sequence[str]) -> Iterator[sheet.Row]:
    """Yield one row per method and category, with the line of each dataset; a category is named in its first row."""
    found = [{(line.name, line.category): line for line in table.lines} for table in tables]
    rows = [[lines.get(key) for lines in found] for key in {key: None for lines in found for key in lines}]
    several = len({name for lines in found for name, _ in lines}) > 1
    before: Line | None = None
    for row, line in sorted(((row, _first(row)) for row in rows), key=lambda pair: pair[1].order):
        trained_on = " / ".join(dict.fromkeys(own.trained_on for own in row if own and own.trained_on))
        cells = _texts(line, trained_on, texts)
        if "Category" in texts and before and before.category == line.category:
            cells[0] = Cell()
        numbers = [cell for table, own in zip(tables, row, strict=True) for cell in _numbers(table, own)]
        yield sheet.Row((*cells, *numbers), _above(before, line, "Category" in texts, several))
        before = line


def _first(row: Sequence[Line | None]) -> Line:
    """Return the line that names a row and places it: a finished one, if there is one."""
    return min((line for line in row if line), key=lambda line: line.order)


def _above(before: Line | None, line: Line, by_category: bool, several: bool) -> Literal["", "rule", "space"]:
    """Set off the mean of categories by a rule, and settings, or categories of several rows, by space."""
    if before is None:
        return ""
    if not by_category:
        return "space" if before.setting != line.setting else ""
    if before.category == line.category:
        return ""
    return "rule" if line.category == MEAN else "space" if several else ""


def _text_columns(tables: Sequence[Table]) -> list[str]:
    by_category = any(line.category != MEAN for table in tables for line in table.lines)
    return [*(["Category"] if by_category else []), "Method", "Setting", "Trained on"]


def _texts(line: Line, trained_on: str, columns: Sequence[str]) -> list[Cell]:
    name = " ".join([words.title_of(line), *words.marks(line)])
    texts = {
        "Category": words.category(line.category),
        "Method": name,
        "Setting": line.setting,
        "Trained on": trained_on,
    }
    return [Cell(texts[column] or DASH) for column in columns]


def _numbers(table: Table, line: Line | None) -> list[Cell]:
    if line is None:
        return [Cell(DASH)] * len(table.columns)
    if line.status != "done":
        return [Cell(words.STATUSES[line.status], columns=len(table.columns))]
    return [number(line, column) for column in table.columns]


def number(line: Line, column: Column) -> Cell:
    """Return the cell of a finished row's number, with what stands behind it."""
    value, metric = line.values[column], column[1]
    deviation = f"± {words.percent(value.deviation, metric)}" if value.deviation is not None else ""
    gap = f"[{words.gap(value, line)}]" if words.gap(value, line) else ""
    interval = value.interval
    return Cell(
        words.percent(value.percent, metric),
        value.rank,
        (words.percent(interval[0], metric), words.percent(interval[1], metric)) if interval else None,
        tuple(filter(None, [deviation, gap])),
        words.published(value, metric),
    )
