"""A study as a figure: one panel a metric, the swept option along it, measured and published numbers as series.

Numbers that were measured on the paper's dataset share its panels; those of any other dataset have panels and a scale
of their own, because they cannot be compared.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from zsadbench import datasets
from zsadbench.analysis.rows import arrange
from zsadbench.datasets import DatasetCard
from zsadbench.errors import RecordError, UnknownName
from zsadbench.figures import drawing
from zsadbench.figures.drawing import Drawing
from zsadbench.metrics import Column, columns
from zsadbench.records import published, results
from zsadbench.records.results import MEAN, Record
from zsadbench.running import studies
from zsadbench.running.studies import Study, StudyRow
from zsadbench.tables import words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

ACROSS = 4  # panels beside each other: the pixel metrics
NARROWEST = 1.0  # percentage points that a panel shows at least, so that rounding never looks like a trend
PANEL, LEGEND = 1.25, 0.3  # inches of height
PAPER = ""  # the block of the paper's own dataset


@dataclass(frozen=True)
class Series:
    """The numbers of one source, in percent: (position, metric) -> value; None: undefined."""

    told: str  # where they come from
    block: str  # PAPER, or the other dataset that they were measured on
    values: Mapping[tuple[str, Column], float | None]


class _Number(NamedTuple):
    told: str
    block: str
    position: str
    column: Column
    percent: float | None


@dataclass(frozen=True)
class Sweep:
    """What a figure of a study shows."""

    title: str
    positions: tuple[str, ...]  # row labels, or categories
    option: str  # the swept option, where it alone differs and is a number; else ""
    numbers: tuple[float, ...]  # its values at the positions
    series: tuple[Series, ...]


def collect(study: Study, folder: Path) -> Sweep:
    """Read a study's records below its run folder, and the published numbers. Raises RecordError without records."""
    runs = [(row, results.load_run(folder / row.folder)) for row in study.rows if (folder / row.folder).is_dir()]
    measured = _merge(_measured(study, runs))
    if not measured:
        raise RecordError(f"{folder} has no finished cell of study {study.name}; run `zsadbench study {study.name}`.")
    series = [*measured, *_merge(_published(study))]
    if study.level == "category":
        found = {position for one in series for position, _ in one.values}
        return Sweep(study.title, tuple(sorted(found, key=lambda name: (name == MEAN, name))), "", (), tuple(series))
    option, numbers = swept(study.rows)
    return Sweep(study.title, tuple(row.label for row in study.rows), option, numbers, tuple(series))


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


def draw(sweep: Sweep, metrics: Sequence[str] = ()) -> Drawing:
    """Draw a study at the width of a page; `metrics` are names like "pixel.ap", by default all that have numbers.

    Raises UnknownName.
    """
    lines = _lines(_columns(sweep, metrics))
    blocks = list(dict.fromkeys(one.block for one in sweep.series))
    row_height = PANEL if sweep.numbers else max(PANEL, 0.16 * len(sweep.positions) + 0.45)
    with drawing.style():
        from matplotlib.figure import Figure

        size = drawing.TEXT_WIDTH, len(blocks) * (len(lines) * row_height + LEGEND)
        figure = Figure(size, layout="constrained")
        parts = figure.subfigures(len(blocks), 1, squeeze=False)[:, 0]
        for part, block in zip(parts, blocks, strict=True):
            _draw_block(part, sweep, block, lines)
    apart = " Panels of different datasets must not be compared." if len(blocks) > 1 else ""
    return Drawing(figure, f"{sweep.title}. Percent; every panel has its own scale.{apart}")


def _draw_block(part: SubFigure, sweep: Sweep, block: str, lines: Sequence[Sequence[Column]]) -> None:
    axes = part.subplots(len(lines), max(map(len, lines)), squeeze=False, sharey=not sweep.numbers)
    for row, line in zip(axes, lines, strict=True):
        for panel, column in zip_longest(row, line):
            if column is None:
                panel.set_axis_off()
            else:
                _draw_panel(panel, sweep, block, column)
    for panel in axes[-1]:
        panel.set_xlabel(sweep.option)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    part.legend(handles, labels, loc="outside upper center", ncols=len(labels))


def _draw_panel(panel: Axes, sweep: Sweep, block: str, column: Column) -> None:
    shown = []
    for index, series in enumerate(sweep.series):
        if series.block == block:
            values = [series.values.get((position, column)) for position in sweep.positions]
            shown += [value for value in values if value is not None]
            points = [math.nan if value is None else value for value in values]
            look = drawing.marker(index) | {"label": series.told}
            if sweep.numbers:
                panel.plot(sweep.numbers, points, clip_on=False, **look)
            else:
                panel.plot(points, range(len(points)), linestyle="none", clip_on=False, **look)
    panel.set_title(words.title(column))
    panel.grid(True)
    if shown:
        middle, half = (min(shown) + max(shown)) / 2, 0.6 * max(max(shown) - min(shown), NARROWEST)
        (panel.set_ylim if sweep.numbers else panel.set_xlim)(middle - half, middle + half)
    panel.locator_params(axis="y" if sweep.numbers else "x", nbins=4, steps=[1, 2, 5, 10])
    if not sweep.numbers:
        panel.set_yticks(range(len(sweep.positions)), list(map(words.category, sweep.positions)))
        panel.set_ylim(len(sweep.positions) - 0.5, -0.5)  # the first row on top


def _lines(columns: Sequence[Column]) -> list[list[Column]]:
    """Return the panels line by line: all in one, or else the image metrics above the pixel metrics."""
    if len(columns) <= ACROSS:
        return [list(columns)]
    return [list(line) for _, line in groupby(columns, key=lambda column: column[0])]


def _columns(sweep: Sweep, metrics: Sequence[str]) -> list[Column]:
    """Return the columns that were asked for, or those that have numbers; the image metrics of a whole set first."""
    known = {column for one in sweep.series for (_, column), value in one.values.items() if value is not None}
    names = {".".join(column): column for column in columns() if column in known}
    for name in metrics:
        if name not in names:
            raise UnknownName("metric of the study", name, names)
    return [names[name] for name in metrics or names]


def _measured(study: Study, runs: Iterable[tuple[StudyRow, Sequence[Record]]]) -> Iterator[_Number]:
    for row, records in runs:
        for table in arrange(records, "category" if study.level == "category" else "dataset", _cards(), None):
            specs = {record.encoder.get("spec") for record in records if record.dataset == table.dataset}
            encoder = ", ".join(sorted(spec for spec in specs if spec))
            paper = table.dataset == row.dataset
            place = "the paper's data" if paper else table.title
            told = f"measured on {place}{f', encoder {encoder}' if encoder else ''}"
            for line in table.lines:
                position = line.category if study.level == "category" else row.label
                for column, value in line.values.items():
                    yield _Number(told, PAPER if paper else table.title, position, column, value.percent)


def _cards() -> dict[str, DatasetCard]:
    return {listing.name: listing.card for listing in datasets.available() if listing.card}


def _published(study: Study) -> Iterator[_Number]:
    numbers, titles = published.load(), {name: card.title for name, card in _cards().items()}
    told = f"published for {', '.join(dict.fromkeys(titles.get(row.dataset, row.dataset) for row in study.rows))}"
    for row in study.rows:
        for number in studies.printed(study, row, numbers):
            if number.category == MEAN or study.level == "category":
                position = number.category if study.level == "category" else row.label
                yield _Number(told, PAPER, position, (number.level, number.metric), number.value)


def _merge(numbers: Iterable[_Number]) -> list[Series]:
    values: dict[tuple[str, str], dict[tuple[str, Column], float | None]] = {}
    for told, block, position, column, value in numbers:
        values.setdefault((told, block), {})[position, column] = value
    return [Series(told, block, found) for (told, block), found in values.items()]
