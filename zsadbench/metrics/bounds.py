"""How far a metric can be from the exact one when some scores were merged into bins (docs/metrics.md).

A coarse threshold stands for a bin of scores whose order was lost. At the two ends of the bin the counts are exact;
inside it the positives may come before the negatives or after them. Each bound is the larger of the two distances.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from zsadbench.metrics import pro, ranking
from zsadbench.metrics.ranking import Ranking


def error_bounds(
    counts: Ranking, weights: pro.Floats, limit: float, coarse: NDArray[np.bool_]
) -> dict[str, float | None]:
    """Return for each pixel metric the largest possible |reported - exact|; None where the metric is undefined.

    counts: the ranking of the binned scores, K thresholds; weights: [K] as in `pro.aupro`; coarse: [K], True where the
    threshold stands for a bin of several scores.
    """
    if not counts.positives:
        return dict.fromkeys(("auroc", "f1_max", "ap", "aupro"))
    defined = counts.negatives > 0
    return {
        "auroc": _auroc_bound(counts, coarse) if defined else None,
        "f1_max": _f1_bound(counts, coarse),
        "ap": _ap_bound(counts, coarse),
        "aupro": _aupro_bound(counts, weights, limit, coarse) if defined else None,
    }


def _auroc_bound(counts: Ranking, coarse: NDArray[np.bool_]) -> float:
    """Half of the positive-negative pairs that share a bin: each is counted 1/2 and may be 0 or 1."""
    shared = np.sum(counts.hits * (counts.through - counts.above), where=coarse)
    return int(shared) / (2 * counts.positives * counts.negatives)


def _f1_bound(counts: Ranking, coarse: NDArray[np.bool_]) -> float:
    """No threshold of a bin has more hits than its end and fewer false positives than its start."""
    hit = counts.true_positives
    reachable = 2 * hit / (hit + np.where(coarse, counts.above, counts.through) + counts.positives)
    reported = ranking.f1_max(counts).value
    assert reported is not None
    return float(reachable.max()) - reported


def _ap_bound(counts: Ranking, coarse: NDArray[np.bool_]) -> float:
    """Precision is lowest when a bin's negatives come first and its positives follow one by one, highest when last."""
    hit = counts.true_positives
    first = np.where(coarse, hit - counts.hits + 1, hit)
    low = first / (first + counts.through)
    high = hit / (hit + np.where(coarse, counts.above, counts.through))
    reported = hit / (hit + counts.through)
    down, up = np.sum(counts.hits * (reported - low)), np.sum(counts.hits * (high - reported))
    return float(max(down, up)) / counts.positives


def _aupro_bound(counts: Ranking, weights: pro.Floats, limit: float, coarse: NDArray[np.bool_]) -> float:
    """Inside a bin the curve lies between its overlap before and its overlap at the threshold."""
    end = limit * counts.negatives
    curve = pro.overlap_curve(counts, weights)
    width = np.minimum(curve.through, end) - np.minimum(curve.above, end)
    area = pro.rising_areas(curve, end)
    down = np.sum(area - width * curve.before, where=coarse)
    up = np.sum(width * curve.overlap - area, where=coarse)
    return float(max(down, up)) / end
