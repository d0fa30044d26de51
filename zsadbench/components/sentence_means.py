"""Representative vector selection (RVS): many sentence embeddings of one class to one unit vector.

Rules of the CLIP-AD paper and ByChelsea/CLIP-AD@f004973 (docs/methods/clip_ad.md, §Text vectors), and the two plain
means of the other methods (docs/prompts.md#ensembles). All arithmetic is float64.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from zsadbench.errors import UnknownName, UsageError

Vectors = NDArray[np.float64]
Rule = Literal["mean_raw", "mean", "pca", "kde", "mean_shift", "dbscan"]


def select(embeddings: NDArray[np.floating], rule: Rule, *, half: bool = False, **parameters: float) -> Vectors:
    """Return the unit vector [D] float64 that represents the rows of `embeddings` [n, D] (any length, not zero).

    rule: "mean_raw" averages the rows as they are; "mean" averages unit rows; the others are the functions below on
    unit rows, and `parameters` are their keyword arguments. half: round through float16 before the last normalisation,
    as CLIP-AD does for kde, mean_shift and dbscan (§Text vectors). Raises UnknownName and UsageError.
    """
    if rule not in RULES:
        raise UnknownName("ensemble rule", rule, RULES)
    if embeddings.ndim != 2 or len(embeddings) == 0:
        raise UsageError(f"Rule {rule!r} got embeddings of shape {embeddings.shape}; expected [n, D] with n > 0.")
    rows = embeddings.astype(np.float64)
    vector = RULES[rule](rows if rule == "mean_raw" else _unit(rows), **parameters)
    return _unit(vector.astype(np.float16).astype(np.float64) if half else vector)


def mean(rows: Vectors) -> Vectors:
    """Return the mean of the rows [n, D]: [D]."""
    average: Vectors = rows.mean(axis=0)
    return average


def pca(rows: Vectors) -> Vectors:
    """Return the first principal direction with the sentences as features (§Text vectors), pointing towards the mean.

    Each row [D] loses its own mean over D, so that this is no sample-centred PCA; the leading eigenvector e of X^T X
    gives X e, which is the first left singular vector of X [D, n].
    """
    centred = rows - rows.mean(axis=1, keepdims=True)
    direction: Vectors = np.linalg.svd(centred, full_matrices=False)[2][0]
    return direction if direction @ mean(rows) >= 0 else -direction


def kde(rows: Vectors, bandwidth: float = 0.3) -> Vectors:
    """Return the mean weighted by a Gaussian kernel density estimate at each row; bandwidth of CLIP-AD (§Text vectors).

    Densities exceed float range in hundreds of dimensions, therefore the weights are a softmax of their logarithms.
    """
    from scipy.special import softmax
    from sklearn.neighbors import KernelDensity

    log_densities = KernelDensity(kernel="gaussian", bandwidth=bandwidth).fit(rows).score_samples(rows)
    weighted: Vectors = softmax(log_densities) @ rows
    return weighted


def mean_shift(rows: Vectors, bandwidth: float = 2.0) -> Vectors:
    """Return the mean of the largest mean-shift cluster; bandwidth of CLIP-AD (§Text vectors).

    No two unit vectors are further apart than 2, so the default always gives the plain mean, with a warning.
    """
    from sklearn.cluster import MeanShift

    labels = MeanShift(bandwidth=bandwidth).fit_predict(rows)
    return _largest_cluster(rows, labels, f"mean_shift(bandwidth={bandwidth})")


def dbscan(rows: Vectors, eps: float = 0.5, min_samples: int = 15) -> Vectors:
    """Return the mean of the largest DBSCAN cluster, noise left out; defaults of CLIP-AD (§Text vectors).

    CLIP-AD takes eps 1.5 and min_samples 25 on VisA, where the result is the plain mean. Without any cluster the result
    is the plain mean too (§Text vectors; the reference fails). Both warn.
    """
    from sklearn.cluster import DBSCAN

    labels = DBSCAN(eps=eps, min_samples=min_samples).fit_predict(rows)
    return _largest_cluster(rows, labels, f"dbscan(eps={eps}, min_samples={min_samples})")


RULES: dict[str, Callable[..., Vectors]] = {
    "mean_raw": mean,
    "mean": mean,
    "pca": pca,
    "kde": kde,
    "mean_shift": mean_shift,
    "dbscan": dbscan,
}


def _largest_cluster(rows: Vectors, labels: NDArray[np.integer], rule: str) -> Vectors:
    """Return the mean of the rows of the most frequent label; label -1 is noise."""
    clustered = labels[labels >= 0]
    if len(clustered) == 0:
        warnings.warn(f"{rule} found no cluster among the sentences: their plain mean is used.", stacklevel=4)
        return mean(rows)
    if np.all(labels == 0):
        warnings.warn(f"{rule} put all sentences into one cluster: the result is their plain mean.", stacklevel=4)
    return mean(rows[labels == np.bincount(clustered).argmax()])


def _unit(vectors: Vectors) -> Vectors:
    """Scale the last axis to length 1; a zero vector stays zero."""
    scaled: Vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
    return scaled
