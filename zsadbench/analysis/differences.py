"""Which methods differ on one dataset: paired differences over resampled images, corrected for the number of pairs.

Two methods are measured on the same resamples, so that what makes an image hard for both cancels out. The test is
z = difference / standard deviation of the resampled difference, two-sided; unlike a count of resamples it stays
meaningful after Holm's correction over many pairs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from zsadbench import metrics
from zsadbench.analysis import significance
from zsadbench.analysis.intervals import Resamples
from zsadbench.analysis.rows import Name
from zsadbench.metrics.pro import Floats
from zsadbench.records.results import Record


@dataclass(frozen=True)
class Differences:
    """M methods on one dataset and metric, the best first."""

    dataset: str
    level: str
    metric: str
    names: tuple[Name, ...]
    settings: tuple[str, ...]
    values: Floats  # [M] percent, means over the common categories
    p: Floats  # [M, M], corrected by Holm; 1 on the diagonal
    categories: int  # common to all methods
    left_out: tuple[str, ...]  # other categories

    @property
    def points(self) -> Floats:
        """[M, M], by how many percent points the row's method is better than the column's."""
        difference = self.values[:, None] - self.values[None, :]
        return difference if metrics.get(self.metric).higher_is_better else -difference


def compare(records: Iterable[Record], resamples: Resamples, dataset: str, level: str, metric: str) -> Differences:
    """Compare the methods of some records on one dataset.

    Raises RecordError as `significance.analyse` does, and when files are missing beside a record.
    """
    contest = significance.Contest.of((one for one in records if one.dataset == dataset), level, metric)
    values = np.array([contest.mean(method, contest.common) for method in contest.cells])
    order = np.argsort(-values if metrics.get(metric).higher_is_better else values, kind="stable")
    replicates = []
    for i in order:
        found = resamples.replicates([contest.cells[i][place] for place in contest.common], (level, metric))
        assert found is not None  # common categories have a value
        replicates.append(found)
    values = values[order]
    pairs = combinations(range(len(values)), 2)
    p = [_p(values[i] - values[j], replicates[i] - replicates[j]) for i, j in pairs]
    return Differences(
        dataset,
        level,
        metric,
        tuple(contest.names[i] for i in order),
        tuple(contest.settings[i] for i in order),
        100 * values,
        significance.matrix(len(values), significance.holm(p)),
        len(contest.common),
        contest.left_out,
    )


def _p(difference: float, replicates: Floats) -> float:
    from scipy.stats import norm

    deviation = float(np.nanstd(replicates, ddof=1))
    if difference == 0:
        return 1.0
    return float(2 * norm.sf(abs(difference) / deviation)) if deviation else 0.0
