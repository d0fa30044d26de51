"""The pixel-level metrics of one category, exact, from maps and masks that arrive in any number of pieces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from zsadbench.errors import MetricError
from zsadbench.metrics.bounds import error_bounds
from zsadbench.metrics.counts import Keys, NegativeCounts, key_scores, score_keys
from zsadbench.metrics.histograms import choose_edges
from zsadbench.metrics.measure import Counts, measure
from zsadbench.metrics.pro import Floats, regions
from zsadbench.metrics.ranking import Ranking, f1_max

_SIGN = 1 << 31  # turns a signed key into an unsigned one of the same order


class _Outcome(NamedTuple):
    """All that one look at the counts gives."""

    metrics: dict[str, float | None]
    facts: dict[str, Any]
    edges: NDArray[np.float32]


def pixel_metrics(
    maps: NDArray[np.float32] | Sequence[NDArray[np.float32]],
    masks: NDArray[Any] | Sequence[NDArray[Any]],
    *,
    aupro_limit: float = 0.3,
    names: Sequence[str] | None = None,
) -> dict[str, float | None]:
    """Return the pixel-level metrics of anomaly maps in 0..1; None where undefined (docs/metrics.md#definitions).

    maps: [N, H, W] float32, higher is more anomalous; masks: [N, H, W], anomalous where > 0; or lists of N maps and
    masks [H, W], each pair of a size of its own. aupro_limit: the false positive rate where AU-PRO ends; names: N, for
    messages. Raises MetricError as `PixelCounts`.

    Example:

        >>> import numpy as np
        >>> import zsadbench as z
        >>> maps = np.array([[[0.1, 0.9], [0.2, 0.3]]], np.float32)
        >>> z.metrics.pixel_metrics(maps, maps > 0.5)["auroc"]
        1.0
        >>> z.metrics.pixel_metrics([maps[0], np.zeros((9, 5), np.float32)], [maps[0] > 0.5, np.zeros((9, 5))])["ap"]
        1.0
    """
    counts = PixelCounts(aupro_limit)
    if isinstance(maps, np.ndarray):
        counts.update(maps, np.asarray(masks), names)
        return counts.compute()
    names = [f"#{i}" for i in range(len(maps))] if names is None else names
    if not len(maps) == len(masks) == len(names):
        raise MetricError(f"Got {len(maps)} anomaly maps, {len(masks)} masks and {len(names)} names; expected as many.")
    for map_, mask, name in zip(maps, masks, names, strict=True):
        counts.update(np.asarray(map_)[None], np.asarray(mask)[None], [name])
    return counts.compute()


class PixelCounts:
    """Accumulates the pixels of one category, image by image, and computes its pixel metrics (docs/metrics.md).

    Results do not depend on how the images are cut into updates, on their order, or on how shards are merged.
    `budget` bounds the bytes that the negatives take between updates (the default holds 130 million pixels as they are,
    and any number of them once they are counted in tables); anomalous pixels take 8 bytes each on top. Beyond the
    budget scores lose low bits, the lowest scores first, and `facts` says how much that can matter.
    """

    def __init__(self, aupro_limit: float = 0.3, budget: int = 512 * 2**20) -> None:
        if not 0 < aupro_limit <= 1:
            raise MetricError(f"The AU-PRO limit is {aupro_limit}; expected a false positive rate above 0 and up to 1.")
        self.aupro_limit = aupro_limit
        self._images = 0
        self._regions = 0
        self._outcome: _Outcome | None = None  # until something is added
        self._negatives = NegativeCounts(budget)
        self._positives: list[NDArray[np.uint64]] = []  # unsigned key << 32 | pixels of the region

    def update(self, maps: NDArray[np.float32], masks: NDArray[Any], names: Sequence[str] | None = None) -> None:
        """Add N images of one size; the next call may bring another size.

        maps: [N, H, W] float32, higher is more anomalous; masks: [N, H, W], anomalous where > 0; names: N names for
        messages. Raises MetricError for other shapes or dtypes and for NaN or infinity, naming the image.
        """
        maps, masks = np.asarray(maps), np.asarray(masks)
        if maps.ndim != 3 or maps.shape != masks.shape:
            raise MetricError(
                f"Anomaly maps have shape {maps.shape} and masks {masks.shape}; expected both [N, H, W]. "
                "Resize the maps to the masks first."
            )
        if maps.dtype != np.float32:
            raise MetricError(f"Anomaly maps are {maps.dtype}; expected float32, the precision scores are compared in.")
        if names is not None and len(names) != len(maps):
            raise MetricError(f"Got {len(names)} names for {len(maps)} anomaly maps; expected one name per map.")
        self._check_finite(maps, names)
        self._outcome = None
        for map_, mask in zip(maps, masks, strict=True):
            self._add(score_keys(map_), np.ascontiguousarray(mask > 0))

    def merge(self, other: PixelCounts) -> None:
        """Add all that `other` accumulated; `other` stays as it is. Raises MetricError for another AU-PRO limit."""
        if other.aupro_limit != self.aupro_limit:
            raise MetricError(
                f"Pixel counts with AU-PRO limits {self.aupro_limit} and {other.aupro_limit} cannot be merged; "
                "use one limit."
            )
        self._outcome = None
        self._images += other._images
        self._regions += other._regions
        self._negatives.merge(other._negatives)
        self._positives.extend(other._positives)

    def compute(self) -> dict[str, float | None]:
        """Return the pixel-level metrics of everything added so far, None where undefined; more may be added."""
        return dict(self._look().metrics)

    def facts(self) -> dict[str, Any]:
        """Return what stands behind the metrics.

        f1_max_threshold: the largest threshold that attains f1_max; regions: connected anomalous regions; positives and
        negatives: pixels; bound: None when the metrics are exact, else the largest possible error of each.
        """
        return dict(self._look().facts)

    def edges(self) -> NDArray[np.float32]:
        """Return edges [E], descending, for histograms of these pixels (`metrics.histograms`)."""
        return self._look().edges

    def _look(self) -> _Outcome:
        if self._outcome is None:
            ranking, weights, coarse = self._rank()
            metrics = measure("pixel", Counts(ranking, weights, self.aupro_limit))
            facts = {
                "f1_max_threshold": f1_max(ranking).threshold,
                "regions": self._regions,
                "positives": ranking.positives,
                "negatives": ranking.negatives,
                "bound": None if self._negatives.exact else error_bounds(ranking, weights, self.aupro_limit, coarse),
            }
            self._outcome = _Outcome(metrics, facts, choose_edges(ranking))
        return self._outcome

    def _check_finite(self, maps: NDArray[np.float32], names: Sequence[str] | None) -> None:
        if not maps.size or np.isfinite([maps.min(), maps.max()]).all():  # both are NaN where any score is
            return
        image, row, column = np.argwhere(~np.isfinite(maps))[0]
        name = names[image] if names is not None else f"#{self._images + image}"
        raise MetricError(
            f"The anomaly map of image {name} is {maps[image, row, column]} at row {row}, column {column}; "
            "metrics need finite scores. Check what the method returned for it."
        )

    def _add(self, keys: Keys, mask: NDArray[np.bool_]) -> None:
        self._images += 1
        if not mask.any():
            self._negatives.add(keys.flatten())  # a copy: the caller may reuse the map's memory
            return
        found = regions(mask)
        self._regions += found.number
        self._negatives.add(keys[~mask])
        unsigned = (keys.ravel()[found.pixels].astype(np.int64) + _SIGN).astype(np.uint64)
        self._positives.append(unsigned << np.uint64(32) | found.sizes.astype(np.uint64))

    def _rank(self) -> tuple[Ranking, Floats, NDArray[np.bool_]]:
        """Return the ranking, the region weight [K] of each threshold, and where a threshold is a bin of scores [K]."""
        empty = np.zeros(0, np.int64)
        if not self._positives:
            ranking = Ranking(np.zeros(0, np.float32), empty, empty, empty, self._negatives.total)
            return ranking, np.zeros(0), np.zeros(0, np.bool_)
        # Sorting by score and then by region size makes every sum independent of the order of the images.
        packed = np.concatenate(self._positives)
        packed.sort()
        self._positives = [packed]
        keys = ((packed >> np.uint64(32)).astype(np.int64) - _SIGN).astype(np.int32)
        dropped = self._negatives.dropped_bits(keys)
        keys = keys >> dropped << dropped
        starts = np.flatnonzero(np.diff(keys, prepend=keys[0] - 1))
        above, through = self._negatives.around(keys[starts])
        weights = np.add.reduceat(1.0 / (packed & np.uint64(0xFFFFFFFF)).astype(np.float64), starts)
        ranking = Ranking(
            thresholds=key_scores(keys[starts])[::-1],
            hits=np.diff(starts, append=keys.size)[::-1],
            above=above[::-1],
            through=through[::-1],
            negatives=self._negatives.total,
        )
        return ranking, weights[::-1], (dropped[starts] > 0)[::-1]
