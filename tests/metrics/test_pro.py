"""AU-PRO: regions, a hand-worked case, and an independent brute force over all thresholds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from zsadbench.errors import MetricError
from zsadbench.metrics.pixels import PixelCounts
from zsadbench.metrics.pro import regions

UNHURRIED = settings(deadline=None, max_examples=50)  # machines that run tests may be busy


def compute_aupro(maps, masks, limit=0.3):
    counts = PixelCounts(aupro_limit=limit)
    counts.update(np.asarray(maps, np.float32), np.asarray(masks))
    return counts.compute()["aupro"]


def brute_force_aupro(maps, masks, limit):
    """The definition, threshold by threshold: scipy's labels, every distinct score, an interpolated cut, trapezoids."""
    labelled = [ndimage.label(mask, np.ones((3, 3))) for mask in masks]
    fpr, pro = [0.0], [0.0]
    for threshold in np.unique(maps)[::-1]:
        predicted = maps >= threshold
        fpr.append(predicted[masks == 0].mean())
        parts = [
            predicted[i][labels == j].mean() for i, (labels, found) in enumerate(labelled) for j in range(1, found + 1)
        ]
        pro.append(np.mean(parts))
    last = int(np.searchsorted(fpr, limit, side="right"))  # the first point beyond the limit
    if last < len(fpr):
        pro[last] = np.interp(limit, [fpr[last - 1], fpr[last]], [pro[last - 1], pro[last]])
        fpr[last] = limit
    x, y = np.array(fpr[: last + 1]), np.array(pro[: last + 1])
    return np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2) / limit


def test_regions_join_at_corners_and_know_their_sizes():
    mask = np.zeros((5, 7), bool)
    mask[1, 1] = mask[2, 2] = True  # touch at a corner
    mask[4, 4:7] = True
    found = regions(mask)
    assert found.number == 2
    assert found.pixels.tolist() == [8, 16, 32, 33, 34]
    assert found.sizes.tolist() == [2, 2, 3, 3, 3]
    assert regions(mask, connectivity=4).number == 3


def test_an_empty_mask_has_no_regions():
    found = regions(np.zeros((4, 4), bool))
    assert found.number == 0
    assert found.pixels.size == found.sizes.size == 0


@pytest.mark.parametrize("seed", range(5))
def test_regions_agree_with_scipy_on_random_masks(seed):
    mask = np.random.default_rng(seed).random((40, 31)) < 0.3
    labels, number = ndimage.label(mask, np.ones((3, 3)))
    found = regions(mask)
    assert found.number == number
    np.testing.assert_array_equal(found.sizes, np.bincount(labels.ravel())[labels[mask]])


def test_hand_worked_curve_is_cut_by_interpolation():
    # Two regions of 1 and 2 pixels, 5 normal pixels. Points (fpr, pro):
    # 9: (0, 1/2); 8: (0, 3/4); 7: (1/5, 3/4); 6 with a tie: (2/5, 1); then flat.
    maps = [[[9, 0, 8, 6, 0, 7, 6, 0]]]
    masks = [[[1, 0, 1, 1, 0, 0, 0, 0]]]
    assert compute_aupro(maps, masks, limit=0.2) == pytest.approx(0.75, abs=1e-15)
    at_limit = 0.75 + 0.25 * (0.3 - 0.2) / 0.2
    assert compute_aupro(maps, masks, limit=0.3) == pytest.approx((0.2 * 0.75 + 0.1 * (0.75 + at_limit) / 2) / 0.3)
    assert compute_aupro(maps, masks, limit=1.0) == pytest.approx(0.2 * 0.75 + 0.2 * 0.875 + 0.6)


@UNHURRIED
@given(st.integers(0, 10**6), st.sampled_from([2, 8, 10**6]), st.sampled_from([0.05, 0.3, 1.0]))
def test_aupro_agrees_with_brute_force_over_all_thresholds(seed, levels, limit):
    random = np.random.default_rng(seed)
    masks = random.random((3, 9, 8)) < random.uniform(0.05, 0.5)
    masks[0, 0, 0], masks[0, 8, 7] = True, False
    maps = (random.integers(0, levels, masks.shape) + random.integers(0, 2) * masks * levels / 4).astype(np.float32)
    assert compute_aupro(maps, masks, limit) == pytest.approx(brute_force_aupro(maps, masks, limit), abs=1e-12)


def test_agreement_with_brute_force_on_six_images_with_eight_levels():
    random = np.random.default_rng(1)
    masks = ndimage.binary_dilation(random.random((6, 24, 24)) < 0.01, np.ones((1, 3, 3)))
    maps = np.clip(random.integers(0, 8, masks.shape) + 2 * masks, 0, 7).astype(np.float32)
    assert compute_aupro(maps, masks) == pytest.approx(brute_force_aupro(maps, masks, 0.3), abs=1e-12)


@pytest.mark.parametrize("limit", [0, -0.1, 1.5, float("nan")])
def test_a_limit_that_is_no_false_positive_rate_is_an_error(limit):
    with pytest.raises(MetricError, match="AU-PRO limit"):
        PixelCounts(aupro_limit=limit)
