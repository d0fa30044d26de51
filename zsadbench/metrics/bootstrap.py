"""Bootstrap of every metric of one category from histograms of its images, without maps and without the method.

Images are drawn with replacement within each label, so that every resample has as many normal and as many anomalous
images as the category. A resample is a vector of weights, how often each image was drawn; the histograms of all
resamples are one matrix product, and each is measured by the same functions as the records.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zsadbench import metrics
from zsadbench.metrics.histograms import Histograms
from zsadbench.metrics.measure import Counts, measure
from zsadbench.metrics.pro import Floats

RESAMPLES = 1000  # the ends of a 95 % interval then vary by a few percent of its width
CONFIDENCE = 0.95
_AT_ONCE = 256  # resamples; bounds the memory of their histograms to some tens of MB


def draw(names: Sequence[str], labels: NDArray[Any], seed: str, resamples: int = RESAMPLES) -> NDArray[np.int64]:
    """Return weights [R, N] of N images, how often each is drawn: within its label, as often as that has images.

    The draw depends on the seed and the names alone, so that two methods that saw the same images, in any order, are
    resampled alike.
    """
    order = np.argsort(np.asarray(names))
    digest = hashlib.sha256("\n".join([seed, *sorted(names)]).encode()).digest()
    generator = np.random.default_rng(np.frombuffer(digest, np.uint32))
    weights = np.zeros((resamples, len(names)), np.int64)
    for label in np.unique(labels):
        members = order[labels[order] == label]
        weights[:, members] = generator.multinomial(len(members), np.full(len(members), 1 / len(members)), resamples)
    return weights


def replicates(histograms: Histograms, weights: NDArray[Any], aupro_limit: float | None = None) -> dict[str, Floats]:
    """Return every metric of each row of weights [R, N] as [R] float64, NaN where undefined.

    Image level, or with an `aupro_limit` pixel level, whose histograms have regions.
    """
    level = "image" if aupro_limit is None else "pixel"
    rows = []
    for start in range(0, len(weights), _AT_ONCE):
        for ranking, regions in histograms.rankings(weights[start : start + _AT_ONCE]):
            counts = Counts(ranking) if aupro_limit is None else Counts(ranking, regions, aupro_limit)
            rows.append([*measure(level, counts).values()])
    names = metrics.names(level)
    table = np.array(rows, np.float64)  # None becomes NaN
    undefined = np.isnan(table[:, names.index("auroc")])
    table[undefined] = np.nan  # without one of the classes no metric says anything (as in records)
    return dict(zip(names, table.T, strict=True))


def interval(replicates: Floats, value: float) -> tuple[float, float]:
    """Return (low, high) in 0..1 around a value: percentiles of its replicates [R], without their bias.

    Resamples repeat images, which flatters a metric with a free threshold: on average they have a higher F1-max than
    the sample. So the replicates are moved until their mean is the value. Measured on means over 10 categories of 20
    normal and 60 anomalous Gaussian scores, 95 % intervals held the expected F1-max of such test sets in 95 % of 60
    trials; plain percentiles did in 70 %, bias-corrected ones (BC, the main part of BCa) in 63 %. For AUROC and AP they
    all agree.
    """
    tail = (1 - CONFIDENCE) / 2
    low, high = np.nanquantile(replicates, [tail, 1 - tail]) + (value - np.nanmean(replicates))
    return float(max(low, 0)), float(min(high, 1))
