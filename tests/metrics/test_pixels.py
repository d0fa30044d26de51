"""PixelCounts: the table of degenerate cases, scikit-learn, streaming, merging, the budget and its bounds."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from zsadbench.errors import MetricError
from zsadbench.metrics import names
from zsadbench.metrics.pixels import PixelCounts

UNHURRIED = settings(deadline=None, max_examples=50)  # machines that run tests may be busy


def count(maps, masks, **options) -> PixelCounts:
    counts = PixelCounts(**options)
    counts.update(np.asarray(maps, np.float32), np.asarray(masks))
    return counts


def draw(seed: int, levels: int = 10**6, images: int = 6, side: int = 24):
    """Maps [N, H, W] with values of both signs, some images normal, and masks with a few blocks."""
    random = np.random.default_rng(seed)
    masks = np.zeros((images, side, side), np.uint8)
    for mask in masks[: images // 2 + 1]:
        for row, column in random.integers(0, side - 4, (3, 2)):
            mask[row : row + 4, column : column + random.integers(1, 5)] = 1
    maps = random.normal(size=masks.shape) + masks * random.uniform(0, 2)
    step = 8 / levels
    return (np.round(maps / step) * step).astype(np.float32), masks


MASK = np.zeros((2, 6, 10), np.uint8)
MASK[0, 1:4, 2:7] = 1
PREVALENCE = MASK.mean()


# The lines of the table of docs/metrics.md#degenerate-cases.


def test_without_positive_pixels_every_metric_is_undefined():
    counts = count(np.random.default_rng(0).random(MASK.shape), np.zeros_like(MASK))
    assert counts.compute() == {"auroc": None, "f1_max": None, "ap": None, "aupro": None}
    assert counts.facts() == {
        "f1_max_threshold": None,
        "regions": 0,
        "positives": 0,
        "negatives": MASK.size,
        "bound": None,
    }


def test_without_any_image_every_metric_is_undefined():
    assert set(PixelCounts().compute().values()) == {None}


def test_without_negative_pixels_auroc_and_aupro_are_undefined_and_the_others_are_one():
    counts = count(np.random.default_rng(0).random(MASK.shape), np.ones_like(MASK))
    assert counts.compute() == {"auroc": None, "f1_max": 1.0, "ap": 1.0, "aupro": None}


@pytest.mark.parametrize("value", [0.0, 0.37, -12.5])
@pytest.mark.parametrize("limit", [0.3, 1.0])
def test_equal_scores_give_half_the_prevalence_and_half_the_limit(value, limit):
    values = count(np.full(MASK.shape, value), MASK, aupro_limit=limit).compute()
    assert values["auroc"] == 0.5
    assert values["ap"] == pytest.approx(PREVALENCE, abs=1e-15)
    assert values["f1_max"] == pytest.approx(2 * PREVALENCE / (1 + PREVALENCE), abs=1e-15)
    assert values["aupro"] == pytest.approx(limit / 2, abs=1e-15)


def test_a_perfect_binary_map_gives_one_everywhere():
    assert count(MASK, MASK).compute() == dict.fromkeys(names("pixel"), 1.0)


def test_an_inverted_binary_map_gives_zero_and_the_prevalence():
    values = count(1 - MASK, MASK).compute()
    assert values["auroc"] == values["aupro"] == 0
    assert values["ap"] == pytest.approx(PREVALENCE, abs=1e-15)
    assert values["f1_max"] == pytest.approx(2 * PREVALENCE / (1 + PREVALENCE), abs=1e-15)


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("sign", [1, -1])
def test_maps_that_are_not_finite_are_an_error_that_names_the_image_and_adds_nothing(bad, sign):
    counts = count(MASK, MASK)
    maps = np.full(MASK.shape, sign, np.float32)
    maps[1, 2, 3] = bad
    with pytest.raises(MetricError, match=r"image crack/001\.png is -?(nan|inf) at row 2, column 3"):
        counts.update(maps, MASK, ["good/000.png", "crack/001.png"])
    with pytest.raises(MetricError, match="image #3"):
        counts.update(maps, MASK)
    assert counts.compute() == dict.fromkeys(names("pixel"), 1.0)


@pytest.mark.parametrize("masks", [MASK > 0, MASK * 255, MASK * np.array([3, 7])[:, None, None], MASK.astype(float)])
def test_masks_may_be_bool_zero_255_instance_ids_or_floats(masks):
    maps, _ = draw(0, images=2)
    maps = np.ascontiguousarray(maps[:, :6, :10])
    assert count(maps, masks).compute() == count(maps, MASK).compute()


# Values.


@pytest.mark.parametrize("levels", [4, 100, 10**6])
@pytest.mark.parametrize("seed", range(4))
def test_pixel_metrics_agree_with_scikit_learn(seed, levels):
    maps, masks = draw(seed, levels)
    values = count(maps, masks).compute()
    precision, recall, _ = precision_recall_curve(masks.ravel(), maps.ravel())
    assert values["auroc"] == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()), abs=1e-12)
    assert values["ap"] == pytest.approx(average_precision_score(masks.ravel(), maps.ravel()), abs=1e-12)
    assert values["f1_max"] == pytest.approx(np.max(2 * precision * recall / (precision + recall + 1e-300)), abs=1e-12)


def test_f1_max_threshold_is_the_largest_that_attains_it():
    maps, masks = draw(3, levels=20)
    counts = count(maps, masks)

    def f1(threshold):
        predicted = maps >= threshold
        return 2 * (predicted & (masks > 0)).sum() / (predicted.sum() + masks.sum())

    best = max(f1(threshold) for threshold in np.unique(maps))
    assert counts.compute()["f1_max"] == pytest.approx(best, abs=1e-15)
    attaining = [threshold for threshold in np.unique(maps) if f1(threshold) == best]
    assert counts.facts()["f1_max_threshold"] == max(attaining)


def test_minus_zero_equals_zero():
    maps = np.where(MASK > 0, np.float32(-0.0), np.float32(0.0))
    assert count(maps, MASK).compute()["auroc"] == 0.5


def test_subnormal_scores_are_told_apart():
    assert count(MASK * 1e-45, MASK).compute() == dict.fromkeys(names("pixel"), 1.0)
    assert count(MASK * -1e-45, MASK).compute()["auroc"] == 0


def test_maps_in_any_memory_layout_and_masks_in_another_give_the_same():
    maps, masks = draw(1)
    turned = count(maps.transpose(0, 2, 1), masks.transpose(0, 2, 1))
    assert turned.compute() == count(maps, masks).compute()
    assert count(maps, np.asfortranarray(masks)).compute() == count(maps, masks).compute()


def test_the_caller_may_reuse_the_memory_of_its_arrays():
    maps, masks = draw(2)
    maps = np.abs(maps)
    expected = count(maps, masks).compute()
    counts, buffer, mask_buffer = PixelCounts(), np.empty_like(maps[:1]), np.empty_like(masks[:1])
    for map_, mask in zip(maps, masks, strict=True):
        buffer[0], mask_buffer[0] = map_, mask
        counts.update(buffer, mask_buffer)
        buffer[:], mask_buffer[:] = 0, 0
    assert counts.compute() == expected


# Streaming.


@UNHURRIED
@given(st.integers(0, 10**6), st.sampled_from([5, 10**6]), st.randoms(use_true_random=False))
def test_results_do_not_depend_on_chunks_order_or_shards(seed, levels, shuffler):
    maps, masks = draw(seed, levels)
    whole = count(maps, masks)
    order = list(range(len(maps)))
    shuffler.shuffle(order)
    cuts = sorted(shuffler.sample(range(1, len(maps)), 2))
    shards = []
    for part in np.split(np.array(order), cuts):
        shards.append(PixelCounts())
        for i in part:
            shards[-1].update(maps[i : i + 1], masks[i : i + 1])
    merged = shards[0]
    for shard in shards[1:]:
        merged.merge(shard)
    assert merged.compute() == whole.compute()
    assert merged.facts() == whole.facts()


@UNHURRIED
@given(st.integers(0, 10**6))
def test_results_do_not_change_under_strictly_monotone_maps_without_ties(seed):
    random = np.random.default_rng(seed)
    masks = draw(seed)[1]
    maps = random.integers(0, 12, masks.shape).astype(np.float32)
    expected = count(maps, masks).compute()
    for transform in (
        np.exp,
        np.sqrt,
        lambda x: -1 / (x + 1),
        lambda x: 1e6 * x - 3e6,
        lambda x: x**9,
        lambda x: x / 97,
    ):
        assert count(transform(maps), masks).compute() == expected


def test_images_of_different_sizes_may_be_added():
    maps, masks = draw(5)
    counts = PixelCounts()
    for stop in (7, 24):
        counts.update(maps[:, :, :stop], masks[:, :, :stop])
    both = [np.concatenate((x[:, :, :7].ravel(), x.ravel())) for x in (maps, masks)]
    assert counts.compute()["auroc"] == pytest.approx(roc_auc_score(both[1], both[0]), abs=1e-12)


def test_more_may_be_added_after_computing():
    maps, masks = draw(6)
    counts = count(maps[:2], masks[:2])
    first = counts.compute()
    counts.update(maps[2:], masks[2:])
    assert counts.compute() == count(maps, masks).compute() != first


def test_merging_leaves_the_other_as_it_is():
    maps, masks = draw(7)
    left, right = count(maps[:3], masks[:3]), count(maps[3:], masks[3:])
    before = right.compute()
    left.merge(right)
    left.update(maps[:1], masks[:1])
    left.compute()
    assert right.compute() == before == count(maps[3:], masks[3:]).compute()


def test_counts_with_different_limits_do_not_merge():
    with pytest.raises(MetricError, match=r"0\.3 and 1\.0"):
        PixelCounts().merge(PixelCounts(aupro_limit=1.0))


def test_facts_count_pixels_and_regions():
    maps, _ = draw(8, images=2)
    mask = np.zeros((2, 24, 24), bool)
    mask[0, 2:4, 2:4] = mask[0, 4, 4] = mask[1, 0, 0] = mask[1, 0, 2] = True
    facts = count(maps, mask).facts()
    assert (facts["regions"], facts["positives"], facts["negatives"]) == (3, 7, 2 * 24 * 24 - 7)


# The memory budget.


@UNHURRIED
@given(st.integers(0, 10**6), st.integers(64, 8000), st.booleans())
def test_beyond_the_budget_every_metric_is_within_its_bound(seed, budget, merging):
    maps, masks = draw(seed)
    exact = count(maps, masks).compute()
    if merging:
        counts = count(maps[:2], masks[:2], budget=budget)
        counts.merge(count(maps[2:], masks[2:], budget=budget))
    else:
        counts = PixelCounts(budget=budget)
        for i in range(len(maps)):
            counts.update(maps[i : i + 1], masks[i : i + 1])
    bound = counts.facts()["bound"]
    for name, value in counts.compute().items():
        assert abs(value - exact[name]) <= bound[name] + 1e-12


def test_the_bound_is_small_when_few_bits_are_dropped_and_zero_is_not_claimed():
    maps, masks = draw(11, images=40)
    counts = count(maps, masks, budget=30_000)
    bound = counts.facts()["bound"]
    assert 0 < bound["auroc"] < 0.002
    assert all(0 < value < 0.05 for value in bound.values())


def test_the_threshold_of_the_approximate_path_attains_the_reported_f1():
    maps, masks = draw(12)
    counts = count(maps, masks, budget=2000)
    predicted = maps >= counts.facts()["f1_max_threshold"]
    f1 = 2 * (predicted & (masks > 0)).sum() / (predicted.sum() + masks.sum())
    assert counts.facts()["bound"] is not None
    assert counts.compute()["f1_max"] == pytest.approx(f1, abs=1e-15)


def test_the_bound_of_an_undefined_metric_is_undefined():
    maps, masks = draw(13)
    bound = count(maps, np.zeros_like(masks), budget=2000).facts()["bound"]
    assert bound == dict.fromkeys(names("pixel"))


@pytest.mark.parametrize("style", ["distance", "probability"])
def test_extra_memory_stays_below_eight_bytes_a_pixel(style):
    random = np.random.default_rng(0)
    maps = random.normal(1.5, 0.2, (24, 256, 256)).astype(np.float32)
    if style == "probability":
        maps = 1 / (1 + np.exp(-16 * (maps - 2)))
    masks = np.zeros(maps.shape, np.uint8)
    masks[::2, 40:60, 40:80] = 1
    tracemalloc.start()
    try:
        counts = PixelCounts()
        for start in range(0, len(maps), 8):
            counts.update(maps[start : start + 8], masks[start : start + 8])
        counts.compute()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert counts.facts()["bound"] is None
    assert peak / maps.size < 8


# Wrong input.


@pytest.mark.parametrize(
    ("maps", "masks", "names", "message"),
    [
        (np.zeros((2, 3, 4), np.float32), np.zeros((2, 4, 3)), None, r"\(2, 3, 4\) and masks \(2, 4, 3\)"),
        (np.zeros((3, 4), np.float32), np.zeros((3, 4)), None, r"\[N, H, W\]"),
        (np.zeros((2, 3, 4)), np.zeros((2, 3, 4)), None, "float64; expected float32"),
        (np.zeros((2, 3, 4), np.float32), np.zeros((2, 3, 4)), ["a"], "1 names for 2"),
    ],
)
def test_wrong_input_is_a_sentence(maps, masks, names, message):
    with pytest.raises(MetricError, match=message):
        PixelCounts().update(maps, masks, names)
