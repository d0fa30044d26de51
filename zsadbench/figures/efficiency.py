"""The efficiency figure: quality against the time and the memory that an image costs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zsadbench import datasets
from zsadbench.errors import RecordError
from zsadbench.figures import drawing
from zsadbench.figures.drawing import Drawing
from zsadbench.figures.map_samples import only
from zsadbench.records import efficiency, results
from zsadbench.tables import efficiency as efficiency_table
from zsadbench.tables import words
from zsadbench.tables.efficiency import MethodCosts

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANEL = 1.6  # inches of height
COSTS = {"ms/image": "ms per image", "infer GB": "memory in GB"}  # column of the table -> axis


def collect(runs: Sequence[Path], dataset: str = "") -> tuple[list[MethodCosts], str]:
    """Return the rows of the efficiency table of some runs, and a dataset's title; "" stands for the only dataset.

    Raises RecordError where costs or results are missing or must not be compared, UnknownName, UsageError.
    """
    records = [record for run in runs for record in results.load_run(run)]
    measured = [record for run in runs for record in efficiency.load_run(run) if record.status == "done"]
    name = only("dataset", dataset, {record.dataset for record in records if record.status == "done"})
    titles = {listing.name: listing.card.title for listing in datasets.available() if listing.card}
    return list(efficiency_table.collect(measured, records)), titles.get(name, name)


def draw(rows: Sequence[MethodCosts], dataset: str) -> Drawing:
    """Draw rows of the efficiency table that have a quality on a dataset (its title), at the width of a page.

    Raises RecordError where they were measured on two devices, or where none has both time and quality.
    """
    qualities = [f"{dataset} {words.label(column)}" for column in efficiency_table.QUALITY]
    qualities = [quality for quality in qualities if any(_value(row, quality) is not None for row in rows)]
    shown = [row for row in rows if any(_value(row, quality) is not None for quality in qualities)]
    if not shown:
        raise RecordError(
            f"no method has both a measured cost and a quality on {dataset}; run `zsadbench run` and `zsadbench "
            "profile` with the same methods, options and encoder."
        )
    devices = sorted({efficiency_table.device(row.record) for row in shown})
    if len(devices) > 1:
        raise RecordError(f"times of two devices must not be compared: {' and '.join(devices)}. Draw the runs apart.")
    with drawing.style():
        from matplotlib.figure import Figure

        figure = Figure((drawing.TEXT_WIDTH, PANEL * len(qualities) + 0.2), layout="constrained")
        axes = figure.subplots(len(qualities), len(COSTS), sharey="row", sharex="col", squeeze=False)
        for line, quality in zip(axes, qualities, strict=True):
            for panel, cost in zip(line, COSTS, strict=True):
                _draw_panel(panel, shown, cost, quality)
            line[0].set_ylabel(quality.removeprefix(f"{dataset} "))
        for panel, label in zip(axes[-1], COSTS.values(), strict=True):
            panel.set_xlabel(label)
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right upper")
    images = shown[0].record.timings[0].batch
    random = " *: random weights." if any(row.record.random_weights for row in shown) else ""
    return Drawing(
        figure,
        f"Quality on {dataset} against cost on {devices[0]}, encoder passes of {images}. Lines: 10th to 90th "
        f"percentile of the time. {shown[0].record.timed}{random}",
    )


def _draw_panel(panel: Axes, rows: Sequence[MethodCosts], cost: str, quality: str) -> None:
    panel.margins(0.12)
    for index, row in enumerate(rows):
        x, y = _value(row, cost), _value(row, quality)
        if x is None or y is None:
            continue
        if cost == "ms/image":
            spread = row.record.timings[0].p10_ms, row.record.timings[0].p90_ms
            panel.plot(spread, (y, y), color=drawing.marker(index)["color"], linewidth=0.8)
        panel.plot(
            x, y, linestyle="none", clip_on=False, label=f"{row.texts[0]}, {row.texts[1]}", **drawing.marker(index)
        )
    if cost == "ms/image":
        panel.set_xscale("log")
        panel.xaxis.set_major_formatter("{x:g}")
        panel.xaxis.set_minor_formatter("")
    else:
        panel.set_xlim(left=0)
        panel.locator_params(axis="x", nbins=5)
    panel.grid(True)


def _value(row: MethodCosts, column: str) -> float | None:
    return next((cell.value for cell in row.cells if cell.column == column), None)
