"""The named legacy variants: their defects as docs/metrics.md#variants says, and a literal loop for cal_pro_score."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from zsadbench.errors import MetricError
from zsadbench.metrics import legacy
from zsadbench.metrics.pixels import PixelCounts


def draw(seed=0):
    """Six smooth maps [6, 64, 64] in -1 to 3 and masks with blobs that the scores follow."""
    random = np.random.default_rng(seed)
    masks = ndimage.binary_dilation(random.random((6, 64, 64)) < 0.001, np.ones((1, 5, 7))).astype(np.uint8)
    maps = ndimage.gaussian_filter(random.normal(size=masks.shape), (0, 3, 3)) * 8 + masks
    return maps.astype(np.float32), masks


def exact(maps, masks):
    counts = PixelCounts()
    counts.update(maps.astype(np.float32), masks)
    return counts.compute()


def looped_calpro(maps, masks):
    """cal_pro_score read literally: a loop over thresholds, images and regions."""
    overlaps, rates = [], []
    inverse = 1 - masks
    for threshold in np.arange(maps.min(), maps.max(), (maps.max() - maps.min()) / 200):
        predicted = maps > threshold
        parts = []
        for mask, image in zip(masks, predicted, strict=True):
            for value in set(mask[mask > 0].tolist()):
                labels, found = ndimage.label(mask == value, np.ones((3, 3)))
                parts += [image[labels == region].mean() for region in range(1, found + 1)]
        overlaps.append(np.mean(parts))
        rates.append(np.logical_and(inverse, predicted).sum() / inverse.sum())
    points = sorted((rate, overlap) for rate, overlap in zip(rates, overlaps, strict=True) if rate < 0.3)
    x, y = np.array(points).T
    x = (x - x.min()) / (x.max() - x.min())
    return np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2)


PERFECT = np.zeros((2, 16, 16), np.uint8)
PERFECT[0, 3:7, 3:9] = 1


@pytest.mark.parametrize("scale", [1, 255, 2])
@pytest.mark.parametrize("seed", range(3))
def test_calpro200_equals_a_literal_loop_for_any_mask_values(seed, scale):
    maps, masks = draw(seed)
    masks = masks * np.uint8(scale)
    masks[0][masks[0] > 0] = 1  # instance ids differ between images
    assert legacy.aupro_calpro200(maps, masks) == pytest.approx(looped_calpro(maps, masks), abs=1e-12)


def test_calpro200_changes_under_a_monotone_transform_and_exact_aupro_does_not():
    maps, masks = draw()
    squashed = 1 / (1 + np.exp(-8 * maps.astype(np.float64)))
    assert np.unique(squashed).size == np.unique(maps).size
    assert abs(legacy.aupro_calpro200(maps, masks) - legacy.aupro_calpro200(squashed, masks)) > 0.05
    assert exact(maps, masks)["aupro"] == pytest.approx(exact(np.exp(maps), masks)["aupro"], abs=1e-4)


def test_calpro200_stretches_rates_at_both_ends():
    # Scores 3, 2, 1, 0 hold 1, 1, 2, 4 normal pixels: rates 1/8 (t < 3) and 2/8 (t < 2) are kept and become 0 and 1.
    maps = np.array([[[3, 2, 1, 1, 0, 0, 0, 0, 3, 2]]], np.float32)
    masks = np.array([[[0, 0, 0, 0, 0, 0, 0, 0, 1, 1]]], np.uint8)
    assert legacy.aupro_calpro200(maps, masks) == pytest.approx((1 / 2 + 1) / 2)


@pytest.mark.parametrize("masks", [PERFECT, np.zeros_like(PERFECT)], ids=["perfect", "all normal"])
def test_calpro200_is_undefined_where_the_original_returns_nan(masks):
    assert legacy.aupro_calpro200(PERFECT.astype(np.float32), masks) is None


def test_calpro200_is_undefined_after_one_outlier_pixel():
    maps, masks = draw()
    maps[5, 0, 0] = 1e6
    masks[5, 0, 0] = 1
    assert legacy.aupro_calpro200(maps, masks) is None


@pytest.mark.parametrize(
    ("maps", "masks", "message"),
    [
        (np.ones(PERFECT.shape), PERFECT, "all are equal"),
        (1.0 - PERFECT, PERFECT, "200 thresholds"),
        (PERFECT * np.nan, PERFECT, "NaN or infinity"),
        (PERFECT * 1.0, np.ones_like(PERFECT), "normal pixels"),
        (PERFECT * 1.0, PERFECT[:1], "one shape"),
    ],
)
def test_calpro200_raises_a_sentence_where_the_original_raises(maps, masks, message):
    with pytest.raises(MetricError, match=message):
        legacy.aupro_calpro200(maps, masks)


def test_adeval50_gives_a_perfect_binary_map_no_precision_recall_area():
    values = legacy.adeval50(PERFECT.astype(np.float32), PERFECT)
    assert values == {"auroc": 1.0, "aupr": 0.0, "aupro": pytest.approx(1.0)}


def test_adeval50_loses_everything_to_one_hot_pixel():
    maps, masks = draw()
    maps[5, 0, 0] = 1000
    values = legacy.adeval50(maps, masks)
    assert values["auroc"] == pytest.approx(0.5, abs=1e-3)
    assert values["aupro"] == pytest.approx(0.15, abs=1e-3)
    assert exact(maps, masks)["auroc"] > 0.8


def test_adeval50_by_hand_with_two_bins():
    # Edges 4, 2, 0: (fp, tp) of 4 and 2 are (1, 1), (1, 2), (4, 2); nothing precedes the highest score.
    maps = np.array([[[4, 3, 1, 0, 0, 4]]], np.float32)
    masks = np.array([[[1, 1, 0, 0, 0, 0]]])
    values = legacy.adeval50(maps, masks, strips=2)
    assert values["auroc"] == pytest.approx(0.75)
    assert values["aupr"] == pytest.approx((1 / 2 + 2 / 3) / 2 * 0.5)
    assert values["aupro"] == pytest.approx((0.3 - 0.25) * 1 / 0.3)


def test_adeval50_raises_where_the_highest_score_alone_passes_the_limit():
    maps, masks = np.array([[[4.0, 4, 1, 0]]]), np.array([[[0, 1, 0, 0]]])
    with pytest.raises(MetricError, match="at the highest score"):
        legacy.adeval50(maps, masks)


def test_adeval_with_many_strips_approaches_the_exact_values():
    maps, masks = draw(1)
    values, truth = legacy.adeval50(maps, masks, strips=20_000), exact(maps, masks)
    assert values["auroc"] == pytest.approx(truth["auroc"], abs=1e-3)
    assert values["aupro"] == pytest.approx(truth["aupro"], abs=1e-3)


@pytest.mark.parametrize(
    ("maps", "masks"),
    [
        (np.ones(PERFECT.shape), PERFECT),
        (1.0 - PERFECT, PERFECT),
        (PERFECT * 1.0, np.zeros_like(PERFECT)),
        (PERFECT * 1.0, np.ones_like(PERFECT)),
        (np.full(PERFECT.shape, np.inf), PERFECT),
    ],
    ids=["constant", "inverted", "all normal", "no normal pixel", "infinite"],
)
def test_adeval50_raises_a_sentence_where_the_original_raises(maps, masks):
    with pytest.raises(MetricError):
        legacy.adeval50(maps, masks)


def test_conn4_splits_regions_that_touch_at_a_corner():
    # 8-connected: one region of 3 pixels, 2 found at rate 0. 4-connected: regions of 2 and 1, the single one missed.
    masks = np.array([[[1, 1, 0], [0, 0, 1], [0, 0, 0]]])
    maps = np.array([[[9, 9, 1], [1, 1, 0], [1, 1, 1]]], np.float32)
    assert exact(maps, masks)["aupro"] == pytest.approx(2 / 3, abs=1e-12)
    assert legacy.aupro_conn4(maps, masks) == pytest.approx(1 / 2, abs=1e-12)


def test_conn4_equals_the_definition_where_no_region_touches_another():
    maps = draw()[0]
    masks = np.zeros(maps.shape, np.uint8)
    masks[:4, 10:20, 10:30] = masks[:2, 40:43, 40] = 1
    assert legacy.aupro_conn4(maps, masks) == pytest.approx(exact(maps, masks)["aupro"], abs=1e-12)
    assert legacy.aupro_conn4(maps, masks * 0) is None


def test_f1_on_a_grid_misses_what_lies_between_its_points():
    labels = np.array([1, 1, 0, 0])
    assert legacy.f1_grid001(np.array([0.9, 0.8, 0.2, 0.1]), labels) == 1
    assert legacy.f1_grid001(np.array([0.904, 0.903, 0.902, 0.1]), labels) == pytest.approx(4 / 5)
    assert legacy.f1_grid001(np.array([12.0, 11.0, 10.0, 9.0]), labels) == pytest.approx(2 / 3)
    assert legacy.f1_grid001(np.array([0.9, 0.8, 0.2, 0.1]), labels * 0) == 0


def test_f1_on_a_grid_is_strict():
    assert legacy.f1_grid001(np.array([0.0, 0.0]), np.array([1, 0])) == 0


def test_undefined_auroc_as_zero():
    scores = np.array([0.2, 0.7, 0.7])
    assert legacy.auroc_zero_undefined(scores, np.array([0, 1, 0])) == 0.75
    assert legacy.auroc_zero_undefined(scores, np.zeros(3)) == 0
    assert legacy.auroc_zero_undefined(scores, np.ones(3)) == 0
