"""AUROC, AP and F1-max from the counts at the distinct scores of the positives (docs/metrics.md#definitions).

Every metric of this package changes only at scores that a positive has, so images and pixels, arrays and streams all
reduce to a `Ranking` first, and each metric has one implementation.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]


class Ranking(NamedTuple):
    """Counts at the K distinct scores of the positives, highest score first.

    A sample is predicted positive at threshold t when its score is >= t, so equal scores enter together.
    """

    thresholds: NDArray[Any]  # [K] the scores, in the dtype of the scores
    hits: Counts  # [K] positives with exactly this score
    above: Counts  # [K] negatives with a higher score
    through: Counts  # [K] negatives with this score or a higher one: the false positives at this threshold
    negatives: int

    @property
    def positives(self) -> int:
        """The number of positives."""
        return int(self.hits.sum())

    @property
    def true_positives(self) -> Counts:
        """[K] true positives at each threshold."""
        return np.cumsum(self.hits)


class F1Max(NamedTuple):
    """The highest F1 over all thresholds and the largest threshold that attains it: an oracle, chosen on test data."""

    value: float | None
    threshold: float | None


def rank(scores: NDArray[Any], labels: NDArray[Any]) -> Ranking:
    """Count a whole array. scores: [n], any real dtype, compared as given; labels: [n], positive where > 0."""
    positive = labels > 0
    thresholds, hits = np.unique(scores[positive], return_counts=True)
    negatives = np.sort(scores[~positive])
    above = negatives.size - np.searchsorted(negatives, thresholds, side="right")
    through = negatives.size - np.searchsorted(negatives, thresholds, side="left")
    return Ranking(thresholds[::-1], hits[::-1].astype(np.int64), above[::-1], through[::-1], negatives.size)


def auroc(ranking: Ranking) -> float | None:
    """Return [#(pos > neg) + #(pos = neg) / 2] / (P N) in integers until the last division; None without P or N."""
    pairs = ranking.positives * ranking.negatives
    if not pairs:
        return None
    below = ranking.negatives - ranking.through
    tied = ranking.through - ranking.above
    return int(np.sum(ranking.hits * (2 * below + tied))) / (2 * pairs)


def average_precision(ranking: Ranking) -> float | None:
    """Return sum_k (R_k - R_{k-1}) * precision_k: steps, no interpolation; None without positives."""
    if not ranking.positives:
        return None
    hit = ranking.true_positives
    return float(np.sum(ranking.hits * (hit / (hit + ranking.through))) / ranking.positives)


def f1_max(ranking: Ranking) -> F1Max:
    """Return max_t 2 TP / (TP + FP + P) and the largest t attaining it; (None, None) without positives."""
    if not ranking.positives:
        return F1Max(None, None)
    hit = ranking.true_positives
    f1 = 2 * hit / (hit + ranking.through + ranking.positives)
    best = int(np.argmax(f1))  # the first maximum is the largest threshold
    return F1Max(float(f1[best]), float(ranking.thresholds[best]))
