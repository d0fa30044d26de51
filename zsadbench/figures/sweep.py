"""Numbers over a swept option as a figure: one panel a metric, the values along it, one series a source.

Numbers of one dataset share its panels; those of another have panels and a scale of their own, because they cannot be
compared. The best of each series has a ring.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from zsadbench import datasets
from zsadbench import metrics as metric_list
from zsadbench.analysis.rows import arrange, settle, titled
from zsadbench.datasets import DatasetCard
from zsadbench.errors import RecordError, UnknownName, UsageError
from zsadbench.figures import drawing
from zsadbench.figures.drawing import Drawing
from zsadbench.metrics import Column, columns
from zsadbench.records import results
from zsadbench.records.results import Record
from zsadbench.support import variants
from zsadbench.tables import words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

ACROSS = 4  # panels beside each other: the pixel metrics
NARROWEST = 1.0  # percentage points that a panel shows at least, so that rounding never looks like a trend
PANEL, LEGEND = 1.25, 0.3  # inches of height


@dataclass(frozen=True)
class Series:
    """The numbers of one source, in percent: (position, metric) -> value; None: undefined."""

    told: str  # where they come from
    block: str  # whose panels they share: the dataset that they were measured on, or another name for it
    values: Mapping[tuple[str, Column], float | None]


class Point(NamedTuple):
    """One number of a series."""

    told: str
    block: str
    position: str
    column: Column
    percent: float | None


@dataclass(frozen=True)
class Sweep:
    """What a figure shows of a study, or of the variants in a run."""

    title: str
    positions: tuple[str, ...]  # row labels, or categories
    option: str  # the swept option, where it alone differs and is a number; else ""
    numbers: tuple[float, ...]  # its values at the positions
    series: tuple[Series, ...]


def collect(runs: Sequence[Path], option: str = "", methods: Sequence[str] = ()) -> Sweep:
    """Read the variants of some runs that differ in an option, by default the only one in which some differ.

    methods: whose variants, by default all. Raises RecordError where there is nothing to draw, UsageError for several
    options.
    """
    records = settle(one for run in runs for one in results.load_run(run))
    found = [one for one in records if not methods or any(variants.is_called(one.method, name) for name in methods)]
    known = _swept(record.method for record in found if record.status == "done")
    told = " and ".join(map(str, runs))
    if not known or (option and option not in known):
        what = f"the option {option}; they differ in {', '.join(known)}" if known else "an option"
        raise RecordError(
            f"{told}: no finished variants of a method differ in {what}. `zsadbench run --sweep METHOD.OPTION=VALUES` "
            "makes some."
        )
    if len(known) > 1 and not option:
        raise UsageError(f"{told}: variants differ in {' and in '.join(known)}; choose one with --option.")
    option = option or next(iter(known))
    values = known[option]
    numbers = tuple(float(value) for value in values) if all(map(_is_number, values)) else ()
    points = _points([one for one in found if option in variants.split(one.method)[1]], option)
    return Sweep(f"Variants by {option}", tuple(values), option, numbers, tuple(merge(points)))


def _swept(methods: Iterable[str]) -> dict[str, list[str]]:
    """Return the options in which variants differ that are alike otherwise, with their values in order."""
    found: dict[tuple[str, str], dict[str, None]] = {}
    for method in methods:
        base, own = variants.split(method)
        for option, value in own.items():
            rest = {name: other for name, other in own.items() if name != option}
            found.setdefault((option, variants.join(base, rest)), {})[value] = None
    several: dict[str, dict[str, None]] = {}
    for (option, _), values in found.items():
        if len(values) > 1:
            several.setdefault(option, {}).update(values)
    return {option: sorted(values, key=_order) for option, values in several.items()}


def _order(value: str) -> tuple[bool, float, str]:
    return (False, float(value), "") if _is_number(value) else (True, 0.0, value)


def _is_number(value: str) -> bool:
    try:
        return math.isfinite(float(value))
    except ValueError:
        return False


def _points(records: Sequence[Record], option: str) -> Iterator[Point]:
    by_method: dict[str, list[Record]] = {}
    for record in records:
        by_method.setdefault(record.method, []).append(record)
    for method, own in by_method.items():
        base, options = variants.split(method)
        value = options.pop(option)
        name = titled(variants.join(base, options), own[0].title)
        for table in arrange(own, "dataset", cards(), None):
            for line in table.lines:
                suffix = line.name.cli.removeprefix(method)
                for column, number in line.values.items():
                    yield Point(f"{name}{suffix} on {table.title}", table.title, value, column, number.percent)


def cards() -> dict[str, DatasetCard]:
    """Return the cards of all datasets, by name."""
    return {listing.name: listing.card for listing in datasets.available() if listing.card}


def merge(numbers: Iterable[Point]) -> list[Series]:
    """Return the series of some points."""
    values: dict[tuple[str, str], dict[tuple[str, Column], float | None]] = {}
    for told, block, position, column, value in numbers:
        values.setdefault((told, block), {})[position, column] = value
    return [Series(told, block, found) for (told, block), found in values.items()]


def draw(sweep: Sweep, metrics: Sequence[str] = ()) -> Drawing:
    """Draw a sweep at the width of a page; `metrics` are names like "pixel.ap", by default all that have numbers.

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
    return Drawing(
        figure, f"{sweep.title}. Percent; rings mark the best of a series; every panel has its own scale.{apart}"
    )


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
            places, best = sweep.numbers or range(len(points)), _best(values, column)
            rings = [place for place, value in zip(places, values, strict=True) if value is not None and value == best]
            heights = [point for point in points if point == best]
            ring = {"marker": "o", "markersize": 9, "fillstyle": "none", "linestyle": "none", "color": look["color"]}
            if sweep.numbers:
                panel.plot(places, points, clip_on=False, **look)
                panel.plot(rings, heights, clip_on=False, **ring)
            else:
                panel.plot(points, places, clip_on=False, **look | {"linestyle": "none"})
                panel.plot(heights, rings, clip_on=False, **ring)
    panel.set_title(words.title(column))
    panel.grid(True)
    if shown:
        middle, half = (min(shown) + max(shown)) / 2, 0.6 * max(max(shown) - min(shown), NARROWEST)
        (panel.set_ylim if sweep.numbers else panel.set_xlim)(middle - half, middle + half)
    panel.locator_params(axis="y" if sweep.numbers else "x", nbins=4, steps=[1, 2, 5, 10])
    if not sweep.numbers:
        panel.set_yticks(range(len(sweep.positions)), list(map(words.category, sweep.positions)))
        panel.set_ylim(len(sweep.positions) - 0.5, -0.5)  # the first row on top


def _best(values: Iterable[float | None], column: Column) -> float | None:
    """Return the best of some numbers of a metric, None where none is defined."""
    known = [value for value in values if value is not None]
    choose = max if metric_list.get(column[1]).higher_is_better else min
    return choose(known, default=None)


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
            raise UnknownName("metric of the figure", name, names)
    return [names[name] for name in metrics or names]
