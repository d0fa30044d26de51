"""How each metric of the list in `zsadbench.metrics` is computed: scores and labels -> counts -> values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from zsadbench import metrics
from zsadbench.errors import MetricError
from zsadbench.metrics.pro import Floats, aupro
from zsadbench.metrics.ranking import Ranking, auroc, average_precision, f1_max, rank


class Counts(NamedTuple):
    """What the metrics of one category are computed from."""

    ranking: Ranking  # of its images, or of its pixels
    regions: Floats = np.zeros(0)  # [K] of the pixel level: what a threshold adds to the overlap with regions
    aupro_limit: float = 0.3  # false positive rate where AU-PRO ends


FUNCTIONS: dict[str, Callable[[Counts], float | None]] = {  # name -> value in 0..1, None where it is undefined
    "auroc": lambda counts: auroc(counts.ranking),
    "f1_max": lambda counts: f1_max(counts.ranking).value,
    "ap": lambda counts: average_precision(counts.ranking),
    "aupro": lambda counts: aupro(counts.ranking, counts.regions, counts.aupro_limit),
}


def measure(level: str, counts: Counts) -> dict[str, float | None]:
    """Return every metric of a level ("image" or "pixel") in 0..1, None where it is undefined."""
    return {name: FUNCTIONS[name](counts) for name in metrics.names(level)}


def image_metrics(scores: ArrayLike, labels: ArrayLike, names: Sequence[str] | None = None) -> dict[str, float | None]:
    """Return the image-level metrics of one score per image; None where undefined (docs/metrics.md#definitions).

    scores: [N], any real dtype, higher is more anomalous; labels: [N], anomalous where > 0; names: N, for messages.
    Values are in 0..1. Raises MetricError when the shapes differ or a score is NaN or infinite, naming the image.

    Example:

        >>> import zsadbench as z
        >>> z.metrics.image_metrics([0.9, 0.2, 0.4], [1, 0, 0])
        {'auroc': 1.0, 'f1_max': 1.0, 'ap': 1.0}
    """
    scores, labels = np.asarray(scores), np.asarray(labels)
    if scores.dtype.kind not in "fiub":
        raise MetricError(f"Image scores are {scores.dtype}; expected real numbers.")
    if scores.ndim != 1 or scores.shape != labels.shape:
        raise MetricError(
            f"Image scores have shape {scores.shape} and labels {labels.shape}; "
            "expected [N] and [N], one score and one label per image."
        )
    wrong = np.flatnonzero(~np.isfinite(scores))
    if wrong.size:
        image = names[wrong[0]] if names is not None else f"#{wrong[0]}"
        raise MetricError(
            f"The score of image {image} is {scores[wrong[0]]}; metrics need finite scores. "
            "Check what the method returned for it."
        )
    return measure("image", Counts(rank(scores, labels)))
