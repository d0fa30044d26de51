"""From run folders to drawings: what `zsadbench figure` and `Run.figure` draw."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from zsadbench import datasets
from zsadbench.analysis import significance
from zsadbench.figures import efficiency as cost
from zsadbench.figures import map_grid, map_samples
from zsadbench.figures import ranks as critical_difference
from zsadbench.figures import sweep as variants
from zsadbench.figures.drawing import Drawing
from zsadbench.records import places, results


def maps(
    runs: Sequence[Path],
    dataset: str = "",
    category: str = "",
    samples: Sequence[str] = ("worst",),
    count: int = 6,
    methods: Sequence[str] = (),
    overlay: bool = False,
    data_root: Path | None = None,
) -> Drawing:
    """Draw image, ground truth and a heat-map a method for samples of a category; the runs need saved maps.

    dataset: name or NAME=FOLDER, "" for the only one; samples: a rule of `map_samples.RULES`, or names. Raises
    UnknownName, UsageError, RecordError, DataError.
    """
    done = map_samples.finished(runs)
    name, category = map_samples.place(done, _recorded(dataset), category)
    found = map_samples.find(done, name, category, methods)
    data = places.find(runs, dataset if "=" in dataset else name, data_root)
    chosen = map_samples.choose(found, data, samples, count)
    return map_grid.draw(map_grid.collect(found, data, chosen), overlay)


def efficiency(runs: Sequence[Path], dataset: str = "") -> Drawing:
    """Draw quality against time and memory an image. Raises UsageError, RecordError."""
    return cost.draw(*cost.collect(runs, _recorded(dataset)))


def ranks(runs: Sequence[Path], level: str = "image", metric: str = "auroc") -> Drawing:
    """Draw the critical-difference figure of the setting that has most methods.

    Raises UnknownName, RecordError, MissingDependency.
    """
    records = significance.largest_setting(record for run in runs for record in results.load_run(run))
    return critical_difference.draw(significance.analyse(records, level, metric))


def sweep(runs: Sequence[Path], option: str = "", methods: Sequence[str] = (), metrics: Sequence[str] = ()) -> Drawing:
    """Draw the metrics of a method's variants over the option in which they differ. Raises UsageError, RecordError."""
    return variants.draw(variants.collect(runs, option, methods), metrics)


def _recorded(dataset: str) -> str:
    """Return what records call a dataset that was given as NAME or NAME=FOLDER."""
    return datasets.name_of(dataset) if "=" in dataset else dataset
