"""The qualitative figure of papers: image, ground truth and one heat-map a method, for some samples of a category."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from zsadbench.data.reading import Reader
from zsadbench.datasets import Dataset, MaskRule, Sample
from zsadbench.figures import drawing
from zsadbench.figures.drawing import Drawing
from zsadbench.figures.map_samples import Result
from zsadbench.records import saved_maps

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOW, HIGH = 1.0, 99.9  # percentiles where a method's scale ends: the brightest 0.1 % must not darken all the rest
STRIDE = 2  # every second pixel of a map, both ways, is enough for percentiles
PICTURE = 512  # pixels of the longer side of an image in the figure
GAP, LEFT, SCALE = 0.04, 0.28, 0.22  # inches: between panels; for the names of samples; for scales
LINE, LETTER = 0.11, 0.055  # inches of 7 point type: height of a line, mean width of a letter
WIDEST = 1.3  # inches of a panel
FLATTEST, TALLEST = 0.4, 2.5  # height / width of a panel, whatever its image has


@dataclass(frozen=True)
class MapRow:
    """One sample of the figure."""

    name: str
    defect: str  # "normal" for normal images
    image: np.ndarray  # [H, W, 3] uint8
    mask: np.ndarray | None  # [H, W] bool; None where the dataset has no masks
    maps: Mapping[str, np.ndarray]  # printed method name -> [h, w] float32


@dataclass(frozen=True)
class MapGrid:
    """What the figure shows: samples, and the lowest and highest value of each method's common scale."""

    title: str
    rows: tuple[MapRow, ...]
    scales: Mapping[str, tuple[float, float]]


def collect(found: Sequence[Result], dataset: Dataset, samples: Sequence[Sample]) -> MapGrid:
    """Read the maps, images and masks that the figure shows. Raises RecordError where a run kept no maps, DataError."""
    names = [dataset.sample_id(sample) for sample in samples]
    shown: dict[str, dict[str, np.ndarray]] = {}
    scales = {}
    for result in found:
        maps = saved_maps.load(result.run, result.record, [line.sample for line in result.scores])
        scales[result.title] = common_scale(maps.values())
        shown[result.title] = {name: maps[name] for name in names}
    record = found[0].record
    native: Any = record.protocol["native_masks"]
    rule = dataset.card.mask_rule if native == "dataset" else native
    reader = Reader(dataset, dataset.samples(record.category))
    rows = tuple(
        MapRow(
            name,
            (sample.defect or "anomalous") if sample.label else "normal",
            _small(reader.image(sample)),
            _mask(reader, sample, rule) if dataset.card.pixel_level else None,
            {title: maps[name] for title, maps in shown.items()},
        )
        for name, sample in zip(names, samples, strict=True)
    )
    return MapGrid(f"{dataset.card.title}, {record.category}", rows, scales)


def common_scale(maps: Iterable[np.ndarray]) -> tuple[float, float]:
    """Return the percentiles of all maps [h, w] together between which a heat-map's colours run."""
    low, high = np.percentile(np.concatenate([values[::STRIDE, ::STRIDE].ravel() for values in maps]), (LOW, HIGH))
    return float(low), float(high)


def draw(grid: MapGrid, overlay: bool = False) -> Drawing:
    """Draw the grid at the width of a page; with `overlay` heat-maps lie on the image in grey."""
    with drawing.style():
        from matplotlib.figure import Figure

        columns = 2 + len(grid.scales)
        width = min(WIDEST, (drawing.TEXT_WIDTH - LEFT) / columns - GAP)
        heights = [width * min(max(row.image.shape[0] / row.image.shape[1], FLATTEST), TALLEST) for row in grid.rows]
        letters = max(6, int(width / LETTER))
        titles = [textwrap.wrap(title, letters) for title in ("Image", "Ground truth", *grid.scales)]
        top = sum(heights) + GAP * len(heights) + SCALE
        figure = Figure((LEFT + columns * (width + GAP), top + LINE * (max(map(len, titles)) + 0.7)))
        for index, (row, height) in enumerate(zip(grid.rows, heights, strict=True)):
            places = [(LEFT + column * (width + GAP), top - height, width, height) for column in range(columns)]
            panels = [_panel(figure, place) for place in places]
            _draw_row(panels, row, grid.scales, overlay)
            if index == 0:
                for panel, title in zip(panels, titles, strict=True):
                    panel.set_title("\n".join(title), fontsize=7, pad=3)
            top -= height + GAP
        for column, scale in enumerate(grid.scales.values(), 2):
            _draw_scale(_panel(figure, (LEFT + column * (width + GAP), top - 0.05, width, 0.05)), scale)
    return Drawing(figure, _caption(grid))


def _caption(grid: MapGrid) -> str:
    shown = ", ".join(row.name for row in grid.rows)
    return (
        f"{grid.title}. Each method has one scale for all its maps of the category, from their percentile {LOW:g} "
        f"to {HIGH:g}; brighter is more anomalous. Samples: {shown}."
    )


def _draw_row(panels: Sequence[Axes], row: MapRow, scales: Mapping[str, tuple[float, float]], overlay: bool) -> None:
    extent = (0, 1, 1, 0)  # maps and masks cover the whole image, whatever their resolution
    image, truth, *heat = panels
    image.imshow(row.image, aspect="auto", extent=extent)
    image.set_ylabel(f"{row.defect}\n{PurePosixPath(row.name).stem}", fontsize=6, labelpad=2)
    if row.mask is None:
        truth.text(0.5, 0.5, "none", ha="center", va="center", fontsize=6, transform=truth.transAxes)
    else:
        truth.imshow(row.mask, aspect="auto", extent=extent, cmap="gray", vmin=0, vmax=1)
    for panel, (title, (low, high)) in zip(heat, scales.items(), strict=True):
        if overlay:
            panel.imshow(row.image.mean(axis=2), aspect="auto", extent=extent, cmap="gray", vmin=0, vmax=255)
        panel.imshow(
            row.maps[title],
            aspect="auto",
            extent=extent,
            cmap=drawing.HEAT,
            vmin=low,
            vmax=max(high, np.nextafter(low, np.inf)),
            alpha=0.6 if overlay else 1,
        )


def _draw_scale(panel: Axes, scale: tuple[float, float]) -> None:
    panel.imshow(np.linspace(0, 1, 256)[None], aspect="auto", cmap=drawing.HEAT)
    for value, place, side in zip(scale, (0.02, 0.98), ("left", "right"), strict=True):
        panel.text(place, -0.5, f"{value:.2g}", ha=side, va="top", fontsize=6, transform=panel.transAxes)


def _panel(figure: Figure, place: tuple[float, float, float, float]) -> Axes:
    """Add axes without ticks at (left, bottom, width, height) in inches."""
    width, height = figure.get_size_inches()
    left, bottom, wide, high = place
    panel = figure.add_axes((left / width, bottom / height, wide / width, high / height))
    panel.set(xticks=[], yticks=[])
    panel.spines[:].set_visible(False)
    return panel


def _mask(reader: Reader, sample: Sample, rule: MaskRule) -> np.ndarray:
    return _small(reader.mask(sample, rule).astype(np.uint8) * 255) > 127


def _small(pixels: np.ndarray) -> np.ndarray:
    image = Image.fromarray(pixels)
    image.thumbnail((PICTURE, PICTURE))
    return np.asarray(image)
