"""Image-level and pixel-level metrics, exact; approximations that papers used are in `metrics.legacy`.

This is the list of metrics, and everything follows it: records, tables, figures, reports, the gate, published numbers.
A new metric is one more line here, and its function in `metrics.measure`. Nothing heavy is imported, so that tables
print at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from zsadbench.metrics.measure import image_metrics
    from zsadbench.metrics.pixels import PixelCounts, pixel_metrics

__all__ = ["METRICS", "Metric", "PixelCounts", "columns", "get", "image_metrics", "names", "pixel_metrics"]

LEVELS = ("image", "pixel")
Column = tuple[str, str]  # (level, name of a metric)


class Metric(NamedTuple):
    """What is known of a metric beside its function. Its values are in 0..1, and percent wherever they are printed."""

    name: str  # in records, in CSV files, on the command line
    title: str  # in tables and figures
    levels: tuple[str, ...] = LEVELS  # where it is measured
    higher_is_better: bool = True
    decimals: int = 1  # of the percentage, as printed


METRICS = (
    Metric("auroc", "AUROC"),
    Metric("f1_max", "F1-max"),
    Metric("ap", "AP"),
    Metric("aupro", "AU-PRO", levels=("pixel",)),
)


def names(level: str) -> tuple[str, ...]:
    """Return the metrics of a level, in the order of tables."""
    return tuple(metric.name for metric in METRICS if level in metric.levels)


def columns() -> tuple[Column, ...]:
    """Return (level, metric) in the order of tables."""
    return tuple((level, name) for level in LEVELS for name in names(level))


def get(name: str) -> Metric:
    """Return a metric; one that records have and the list lacks is printed under its own name."""
    return next((metric for metric in METRICS if metric.name == name), Metric(name, name))


def __getattr__(name: str) -> Any:
    """Import what computes metrics when it is asked for: numpy and OpenCV come with it."""
    where = {"PixelCounts": "pixels", "pixel_metrics": "pixels", "image_metrics": "measure"}.get(name)
    if where is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{where}"), name)
