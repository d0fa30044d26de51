"""Bootstrap intervals of what a table shows, from the files beside the records; nothing is run again.

Images are drawn with replacement within normal and within anomalous images; the categories stay as they are. A mean
over categories draws each category on its own. All methods of a category are measured on the same draws, so that their
differences are paired. It costs 0.3 to 0.4 s of one core a cell (1000 resamples; 24 to 100 images).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from zsadbench.analysis.rows import Line, Name, Table, identity, name_methods
from zsadbench.errors import RecordError
from zsadbench.metrics import Column, bootstrap
from zsadbench.metrics.histograms import STEPS, Histograms, of_images
from zsadbench.metrics.pro import Floats
from zsadbench.records import pixel_files, results
from zsadbench.records.results import MEAN, Record


class Interval(NamedTuple):
    """The ends of a 95 % interval, in percent."""

    low: float
    high: float


class Resamples:
    """Every metric of the finished cells of some runs, on resamples of their images; measured when first asked for."""

    def __init__(self, runs: Iterable[Path], resamples: int = bootstrap.RESAMPLES) -> None:
        """Read the records of the run folders. Raises RecordError."""
        self._folders = {_key(record): run for run in runs for record in results.load_run(run)}
        self._resamples = resamples
        self._measured: dict[tuple[str, ...], dict[Column, Floats]] = {}
        self._error = 0.0  # largest difference between a metric of histograms and the exact one, 0..1

    def replicates(self, records: Sequence[Record], column: Column) -> Floats | None:
        """Return the mean of a metric over the categories of a row on each resample: [R], 0..1; None if undefined.

        Raises RecordError when files are missing beside a record.
        """
        defined = [record for record in records if getattr(record, column[0]).get(column[1]) is not None]
        if not defined:
            return None
        measured = [self._measure(record) for record in defined]
        if any(column not in found for found in measured):  # a metric that the records have and nothing else knows
            return None
        mean: Floats = np.mean([found[column] for found in measured], axis=0)
        return mean

    def interval(self, records: Sequence[Record], column: Column) -> Interval | None:
        """Return the interval of a row's metric. Raises RecordError when files are missing beside a record."""
        replicates = self.replicates(records, column)
        if replicates is None:
            return None
        value, _, _ = results.mean(getattr(record, column[0]).get(column[1]) for record in records)
        assert value is not None  # else there would be no replicates
        low, high = bootstrap.interval(replicates, value)
        return Interval(100 * low, 100 * high)

    def beside(self, tables: Iterable[Table], records: Iterable[Record]) -> list[Table]:
        """Return the tables of some records with intervals. Raises RecordError when a record lacks its files."""
        records = [record for record in records if record.status == "done"]
        names = name_methods(records)
        rows: dict[tuple[str, Name, str], list[Record]] = {}
        for record in records:
            for category in (record.category, MEAN):
                rows.setdefault((record.dataset, names[identity(record)], category), []).append(record)

        def line_with_intervals(line: Line, dataset: str) -> Line:
            own = rows.get((dataset, line.name, line.category), [])
            values = {
                column: replace(value, interval=self.interval(own, column)) for column, value in line.values.items()
            }
            return replace(line, values=values)

        return [
            replace(table, lines=tuple(line_with_intervals(line, table.dataset) for line in table.lines))
            for table in tables
        ]

    def note(self) -> str:
        """Return what the intervals of a table are, after they have been asked for."""
        return (
            f"Beside each number: its {bootstrap.CONFIDENCE:.0%} bootstrap interval, percentiles of {self._resamples} "
            "resamples moved by their bias; images are drawn within normal and anomalous ones, categories are fixed. "
            f"Pixels are counted in at most {2 * STEPS} bins of scores, which changes metrics by at most "
            f"{100 * self._error:.2f} here."
        )

    def _measure(self, record: Record) -> dict[Column, Floats]:
        key = _key(record)
        if key not in self._measured:
            scores = results.load_scores(self._folders[key], record)
            labels = np.array([line.label for line in scores])
            weights = bootstrap.draw(
                [line.sample for line in scores], labels, f"{record.dataset}/{record.category}", self._resamples
            )
            found = {"image": (of_images(np.array([line.score for line in scores]), labels), None)}
            if record.pixel.get("auroc") is not None:
                found["pixel"] = self._pixels(record, len(scores)), record.protocol["aupro_limit"]
            self._measured[key] = {
                (level, metric): values
                for level, (histograms, limit) in found.items()
                for metric, values in bootstrap.replicates(histograms, weights, limit).items()
            }
        return self._measured[key]

    def _pixels(self, record: Record, images: int) -> Histograms:
        histograms = pixel_files.load(self._folders[_key(record)], record)
        if len(histograms.negatives) != images:
            raise RecordError(
                f"{record.method} on {record.dataset}/{record.category} has pixel histograms of "
                f"{len(histograms.negatives)} images and scores of {images}; delete its record and run the cell again."
            )
        whole = bootstrap.replicates(histograms, np.ones((1, images)), record.protocol["aupro_limit"])
        for metric, values in whole.items():
            self._error = max(self._error, abs(float(values[0]) - (record.pixel[metric] or 0)))
        return histograms


def _key(record: Record) -> tuple[str, ...]:
    return record.dataset, record.method, record.category, record.fingerprint
