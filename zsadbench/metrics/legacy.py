"""Named variants of the metrics that published tables used: for comparison with those tables only, never a default.

Each is re-implemented from its description in docs/metrics.md#variants. Where the original raises, so do these, as
MetricError; where it returns NaN, these return None. They take whole arrays: maps [N, H, W] and masks [N, H, W].
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from zsadbench.errors import MetricError
from zsadbench.metrics.pro import Floats, aupro, regions
from zsadbench.metrics.ranking import auroc, rank

_LIMIT = 0.3  # false positive rate where these AU-PRO variants end


def aupro_calpro200(maps: NDArray[Any], masks: NDArray[Any]) -> float | None:
    """Return AU-PRO as `cal_pro_score` of APRIL-GAN, CLIP-AD, AnomalyCLIP and MuSc computes it.

    Defects: 200 thresholds equally spaced between the lowest and the highest score, so the value changes with any
    monotone transform and with one outlier; strict `>`; points with a false positive rate of 0.3 or more are dropped
    without interpolation; the rates that remain are stretched to [0, 1] at both ends; pixels count as normal where
    `1 - mask` is not 0, which is wrong for 0/255 masks; regions are split by mask value.
    Source: AnomalyCLIP@45ed4dd metrics.py, MuSc@b76b93d utils/metrics.py, APRIL-GAN@f13b8a6 test.py.
    None where no region exists or all kept rates are equal. Raises MetricError for scores that are constant or not
    finite, for masks without a normal pixel, and where fewer than two thresholds stay below the limit.
    """
    _check(maps, masks)
    low, high = maps.min(), maps.max()
    if low == high:
        raise MetricError("aupro_calpro200 needs scores that vary; all are equal, so its thresholds do not exist.")
    thresholds = np.arange(low, high, (high - low) / 200)
    inverse = 1 - masks
    if not inverse.sum():
        raise MetricError("aupro_calpro200 needs normal pixels; 1 - mask sums to 0 over all masks.")
    rates = _above(maps[inverse != 0], thresholds) / inverse.sum()
    kept = rates < _LIMIT
    if np.count_nonzero(kept) < 2:
        raise MetricError(
            "aupro_calpro200 needs two of its 200 thresholds to have a false positive rate below 0.3; "
            f"{np.count_nonzero(kept)} have: the scores rank normal pixels too high."
        )
    scores, weights = _region_weights(maps, masks, split_values=True)
    span = rates[kept].max() - rates[kept].min()
    if not scores.size or not span:
        return None
    overlap = _above(scores, thresholds, weights) / weights.sum()
    return _area((rates[kept] - rates[kept].min())[::-1] / span, overlap[kept][::-1])


def adeval50(maps: NDArray[Any], masks: NDArray[Any], strips: int = 50) -> dict[str, float | None]:
    """Return auroc, aupr and aupro as adeval 1.1.0 with ADer's default of 50 strips computes them.

    Defects: scores are counted in equal bins between the lowest and the highest score, so one outlier or a skewed
    distribution leaves nearly all of them in one bin; the precision-recall area is a trapezoid, not AP, and 0 for a
    perfect binary map; no curve starts at (0, 0), all start at the highest score.
    Source: adeval 1.1.0 mem_effic.py, ADer@902937a util/metric.py and its cfg_common.
    aupro is None where the overlap is 0 on both sides of the limit. Raises MetricError for scores that are constant or
    not finite, for masks without an anomalous or a normal pixel, and where the highest score alone passes the limit.
    """
    _check(maps, masks)
    positive = masks != 0
    if maps.min() == maps.max() or positive.all() or not positive.any():
        raise MetricError("adeval50 needs scores that vary, and both anomalous and normal pixels.")
    low, high = float(maps.min()), float(maps.max())
    edges = (np.linspace(0, 1, strips + 1, dtype=np.float32) * (high - low) + low)[::-1]
    scores, weights = _region_weights(maps, positive)
    hit = _at_least(scores, edges)
    false = _at_least(maps[~positive], edges)
    recall, rate = hit / scores.size, false / np.count_nonzero(~positive)
    precision = np.where(hit + false > 0, hit / np.maximum(hit + false, 1), 1.0)
    overlap = _at_least(scores, edges, weights) / weights.sum()
    return {"auroc": _area(rate, recall), "aupr": _area(recall, precision), "aupro": _area_to_limit(rate, overlap)}


def aupro_conn4(maps: NDArray[Any], masks: NDArray[Any], limit: float = _LIMIT) -> float | None:
    """Return exact AU-PRO with 4-connected regions, as imgad computes it.

    Defect: `scipy.ndimage.label` by default separates pixels that touch at a corner; the definition joins them.
    """
    _check(maps, masks)
    scores, weights = _region_weights(maps, masks > 0, connectivity=4)
    ranking = rank(maps.ravel(), masks.ravel())
    at = ranking.thresholds.size - 1 - np.searchsorted(ranking.thresholds[::-1], scores)
    return aupro(ranking, np.bincount(at, weights, ranking.thresholds.size).astype(np.float64), limit)


def f1_grid001(scores: NDArray[Any], labels: NDArray[Any]) -> float:
    """Return the best F1 over the thresholds 0, 0.01, ..., 0.99, as mala-lab/WinCLIP@4d1d190 main.py computes it.

    Defects: the grid fits probabilities only, and nothing between its points; strict `>`; 0 where no label is positive.
    scores and labels: arrays of one shape, images or maps. Raises MetricError for scores that are not finite.
    """
    _check(scores, labels)
    grid = np.arange(0, 1, 0.01)
    hit, false = _above(scores[labels > 0], grid), _above(scores[~(labels > 0)], grid)
    predicted_or_positive = hit + false + np.count_nonzero(labels > 0)
    return float(np.max(2 * hit / np.maximum(predicted_or_positive, 1)))


def auroc_zero_undefined(scores: NDArray[Any], labels: NDArray[Any]) -> float:
    """Return AUROC, and 0 where it is undefined, as AdaCLIP and MuSc@b76b93d utils/metrics.py do.

    Defect: a category without one of the two classes drags the mean down by its whole share.
    """
    _check(scores, labels)
    value = auroc(rank(scores.ravel(), labels.ravel()))
    return 0.0 if value is None else value


def _check(scores: NDArray[Any], labels: NDArray[Any]) -> None:
    if scores.shape != labels.shape or not scores.size:
        raise MetricError(f"Scores have shape {scores.shape} and masks {labels.shape}; expected one shape, not empty.")
    if not np.isfinite(scores).all():
        raise MetricError("Scores hold NaN or infinity; metrics need finite scores. Check what the method returned.")


def _region_weights(
    maps: NDArray[Any], masks: NDArray[Any], *, connectivity: int = 8, split_values: bool = False
) -> tuple[NDArray[Any], Floats]:
    """Return (scores, 1 / region size), [P] each, of the anomalous pixels, with one label per mask value if asked."""
    scores, weights = [np.empty(0, maps.dtype)], [np.empty(0)]
    for map_, mask in zip(maps, masks, strict=True):
        for value in np.unique(mask[mask != 0]) if split_values else [None]:
            found = regions(np.ascontiguousarray(mask != 0 if value is None else mask == value), connectivity)
            scores.append(map_.ravel()[found.pixels])
            weights.append(1.0 / found.sizes)
    return np.concatenate(scores), np.concatenate(weights)


def _above(scores: NDArray[Any], thresholds: NDArray[Any], weights: Floats | None = None) -> Floats:
    """Return the number (or weight) of scores above each threshold."""
    return _tail(scores, thresholds, weights, "right")


def _at_least(scores: NDArray[Any], thresholds: NDArray[Any], weights: Floats | None = None) -> Floats:
    """Return the number (or weight) of scores at or above each threshold."""
    return _tail(scores, thresholds, weights, "left")


def _tail(scores: NDArray[Any], thresholds: NDArray[Any], weights: Floats | None, side: Any) -> Floats:
    order = np.argsort(scores, kind="stable")
    ordered = np.ones(scores.size) if weights is None else weights[order]
    tails = np.concatenate((np.cumsum(ordered[::-1])[::-1], [0.0]))
    return tails[np.searchsorted(scores[order], thresholds, side=side)]


def _area(x: Floats, y: Floats) -> float:
    """The trapezoids under y over ascending x."""
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1])) / 2)


def _area_to_limit(rate: Floats, overlap: Floats) -> float | None:
    inside = int(np.searchsorted(rate, _LIMIT, side="right"))
    if inside == 0:
        raise MetricError("adeval50 needs a false positive rate of at most 0.3 at the highest score; it is above that.")
    if overlap[inside] == 0:
        return None
    at_limit = np.interp(_LIMIT, rate[inside - 1 : inside + 1], overlap[inside - 1 : inside + 1])
    return _area(np.append(rate[:inside], _LIMIT), np.append(overlap[:inside], at_limit)) / _LIMIT
