"""Histograms and the bootstrap: resamples against images that are really repeated, scipy, and hand-worked cases."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.ndimage import gaussian_filter

from zsadbench.metrics.bootstrap import draw, interval, replicates
from zsadbench.metrics.histograms import STEPS, Histograms, of_images, pixel_histograms
from zsadbench.metrics.measure import image_metrics
from zsadbench.metrics.pixels import PixelCounts

LIMIT = 0.3


def histograms_of(maps: np.ndarray, masks: np.ndarray) -> Histograms:
    counts = PixelCounts(LIMIT)
    counts.update(maps, masks)
    return pixel_histograms(zip(maps, masks, strict=True), counts.edges())


def exact(maps: np.ndarray, masks: np.ndarray, weights: np.ndarray) -> dict[str, float | None]:
    """The metrics of images that really stand there as often as the weights say."""
    counts = PixelCounts(LIMIT)
    counts.update(np.repeat(maps, weights, axis=0), np.repeat(masks, weights, axis=0))
    return counts.compute()


def test_three_images_by_hand():
    maps = np.array([[[1, 2]], [[3, 1]], [[3, 4]]], np.float32)
    masks = np.array([[[0, 0]], [[1, 0]], [[1, 1]]], bool)
    found = histograms_of(maps, masks)
    assert found.edges[-1] == 3 and found.edges.max() > 4, "scores of the positives, and just above them"
    once = replicates(found, np.array([[1, 1, 1], [2, 1, 0]]), LIMIT)
    np.testing.assert_allclose(once["auroc"], [1, 1])
    flipped = histograms_of(-maps, masks)
    # Positives -3, -3, -4; negatives -1, -2, -1. Twice the first image, never the last: P = 1, N = 5, precision 1/6.
    measured = replicates(flipped, np.array([[2, 1, 0]]), LIMIT)
    assert measured["auroc"][0] == 0
    assert measured["ap"][0] == pytest.approx(1 / 6)
    assert measured["f1_max"][0] == pytest.approx(2 / 7)
    assert measured["aupro"][0] == 0


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1))
def test_a_resample_is_measured_as_if_its_images_were_repeated(seed):
    rng = np.random.default_rng(seed)
    maps = rng.integers(-3, 4, (5, 6, 7)).astype(np.float32)
    masks = rng.random((5, 6, 7)) < 0.2
    masks[0] = False
    weights = rng.integers(0, 3, 5)
    wanted = exact(maps, masks, weights)
    found = replicates(histograms_of(maps, masks), weights[None], LIMIT)
    for name, value in wanted.items():
        assert found[name][0] == pytest.approx(value if wanted["auroc"] is not None else np.nan, nan_ok=True), name


def test_image_scores_are_measured_exactly_ties_included():
    rng = np.random.default_rng(0)
    scores, labels = rng.integers(0, 6, 30) / 7, rng.integers(0, 2, 30)
    weights = draw([f"{i:02}" for i in range(30)], labels, "test", 50)
    found = replicates(of_images(scores, labels), weights)
    for row, counts in enumerate(weights):
        wanted = image_metrics(np.repeat(scores, counts), np.repeat(labels, counts))
        assert {name: values[row] for name, values in found.items()} == pytest.approx(wanted)


@pytest.mark.parametrize("scale", ["as they are", "probabilities", "a narrow range", "both signs"])
def test_bins_change_metrics_of_smooth_maps_by_tenths_of_a_point_at_most(scale):
    rng = np.random.default_rng(1)
    masks = np.zeros((12, 96, 96), bool)
    for mask in masks[4:]:
        y, x = rng.integers(0, 70, 2)
        mask[y : y + rng.integers(5, 26), x : x + rng.integers(5, 26)] = True
    maps = gaussian_filter(rng.normal(size=masks.shape), (0, 4, 4)) * 8 + gaussian_filter(masks * 2.0, (0, 3, 3)) + 1
    maps = {
        "as they are": maps,
        "probabilities": 1 / (1 + np.exp(6 - 4 * maps)),
        "a narrow range": 0.5 + maps / 1e3,
        "both signs": maps - np.median(maps),
    }[scale].astype(np.float32)
    found = histograms_of(maps, masks)
    assert len(found.edges) <= 2 * STEPS < len(np.unique(maps[masks])), "there are more scores than bins"
    weights = draw([f"{i:02}" for i in range(12)], masks.any(axis=(1, 2)).astype(int), "test", 5)
    measured = replicates(found, weights, LIMIT)
    for row, counts in enumerate(weights):
        assert {name: values[row] for name, values in measured.items()} == pytest.approx(
            exact(maps, masks, counts), abs=2e-3
        )


def test_a_constant_map_has_one_bin():
    masks = np.zeros((2, 4, 4), bool)
    masks[1, 0, 0] = True
    found = replicates(histograms_of(np.ones((2, 4, 4), np.float32), masks), np.array([[1, 1], [3, 1], [1, 0]]), LIMIT)
    np.testing.assert_allclose(found["auroc"], [0.5, 0.5, np.nan])
    np.testing.assert_allclose(found["ap"], [1 / 32, 1 / 64, np.nan])


def test_draws_are_stratified_repeatable_and_do_not_depend_on_the_order_of_images():
    names, labels = [f"{i:02}" for i in range(20)], np.array([0] * 8 + [1] * 12)
    weights = draw(names, labels, "mvtec/bottle", 200)
    assert (weights[:, :8].sum(axis=1) == 8).all() and (weights[:, 8:].sum(axis=1) == 12).all()
    assert weights.mean(axis=0) == pytest.approx(np.ones(20), abs=0.25), "every image is as likely as the others"
    order = np.random.default_rng(0).permutation(20)
    again = draw([names[i] for i in order], labels[order], "mvtec/bottle", 200)
    assert (again == weights[:, order]).all()
    assert (draw(names, labels, "mvtec/cable", 200) != weights).any()


def test_replicates_of_auroc_spread_as_those_of_scipy():
    rng = np.random.default_rng(2)
    normal, anomalous = rng.normal(size=15), rng.normal(1, size=25)

    def auroc(a, b, axis):
        return (a[..., :, None] < b[..., None, :]).mean(axis=(-2, -1))

    reference = stats.bootstrap(
        (normal, anomalous), auroc, vectorized=True, n_resamples=4000, method="percentile", random_state=0, batch=500
    )
    scores, labels = np.concatenate((normal, anomalous)), np.array([0] * 15 + [1] * 25)
    found = replicates(of_images(scores, labels), draw([f"{i:02}" for i in range(40)], labels, "test", 4000))["auroc"]
    assert np.quantile(found, [0.025, 0.975]) == pytest.approx(list(reference.confidence_interval), abs=0.01)
    assert found.std(ddof=1) == pytest.approx(reference.standard_error, rel=0.05)


def test_the_interval_is_the_percentiles_without_the_bias():
    replicates = np.arange(101) / 200  # 0 to 0.5, mean 0.25
    assert interval(replicates, 0.35) == pytest.approx((0.1 + 0.0125, 0.6 - 0.0125))
    assert interval(replicates, 0.1)[0] == 0, "a metric has no value below 0"
    assert interval(np.append(replicates, np.nan), 0.35) == pytest.approx((0.1125, 0.5875)), "undefined resamples"


def test_intervals_of_auroc_hold_the_true_value_about_as_often_as_they_say():
    rng = np.random.default_rng(3)
    labels, names = np.array([0] * 30 + [1] * 30), [f"{i:02}" for i in range(60)]
    truth, held = stats.norm.cdf(1 / np.sqrt(2)), 0
    for trial in range(40):
        scores = rng.normal(labels)
        histograms = of_images(scores, labels)
        found = replicates(histograms, draw(names, labels, str(trial), 200))["auroc"]
        low, high = interval(found, replicates(histograms, np.ones((1, 60)))["auroc"][0])
        held += low <= truth <= high
    assert 34 <= held <= 40  # 95 % of 40 are 38
