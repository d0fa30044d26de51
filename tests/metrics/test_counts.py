"""Score keys and the counts of negatives around any key, against sorting."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zsadbench.metrics import counts as counts_module
from zsadbench.metrics.counts import NegativeCounts, key_scores, score_keys

UNHURRIED = settings(deadline=None, max_examples=50)  # machines that run tests may be busy

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
PLENTY = 2**30


def keys_of(*parts):
    return [score_keys(np.asarray(part, np.float32)) for part in parts]


def counted(parts, budget=PLENTY) -> NegativeCounts:
    counts = NegativeCounts(budget)
    for keys in parts:
        counts.add(keys)
    return counts


def by_sorting(keys, thresholds):
    ordered = np.sort(keys)
    above = keys.size - np.searchsorted(ordered, thresholds, side="right")
    return above, keys.size - np.searchsorted(ordered, thresholds, side="left")


def assert_exact(counts, keys, thresholds):
    above, through = counts.around(thresholds)
    expected_above, expected_through = by_sorting(keys, thresholds)
    np.testing.assert_array_equal(above, expected_above)
    np.testing.assert_array_equal(through, expected_through)


@UNHURRIED
@given(st.lists(finite, min_size=1))
def test_keys_compare_as_scores_do_and_convert_back(values):
    scores = np.array(values, np.float32)
    keys = score_keys(scores)
    np.testing.assert_array_equal(keys[:, None] < keys, scores[:, None] < scores)
    np.testing.assert_array_equal(keys[:, None] == keys, scores[:, None] == scores)
    np.testing.assert_array_equal(key_scores(keys), scores)


def test_keys_of_neighbouring_floats_are_neighbouring_integers():
    scores = np.array([0.0, 1e-45, 1.0, -1.0, -1e-45], np.float32)
    up = np.nextafter(scores, np.float32(np.inf))
    np.testing.assert_array_equal(score_keys(up) - score_keys(scores), 1)


@UNHURRIED
@given(st.lists(st.lists(finite), min_size=1), st.lists(finite, min_size=1))
def test_counts_around_any_threshold_equal_sorting(parts, thresholds):
    parts = keys_of(*parts)
    thresholds = np.unique(keys_of(thresholds)[0])
    assert_exact(counted(parts), np.concatenate(parts), thresholds)


@pytest.mark.parametrize("bins", [1, 16, 2**20])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_counts_are_exact_however_coarse_the_bins_are(monkeypatch, bins, scale):
    monkeypatch.setattr(counts_module, "_BINS_PER_KEY", bins)
    random = np.random.default_rng(0)
    (keys,) = keys_of(random.normal(size=5000) ** 3 * scale)
    thresholds = np.unique(random.choice(keys, 50))
    assert_exact(counted(np.array_split(keys, 7)), keys, thresholds)


def test_counts_are_exact_over_the_whole_range_of_float32():
    largest = np.finfo(np.float32).max
    (keys,) = keys_of([-largest, -largest, -1, -1e-45, 0, 1e-45, 1, largest, largest])
    assert_exact(counted([keys]), keys, np.unique(keys))


@pytest.mark.parametrize("near_zero", [0.0, -1e-40, 1e-40])
def test_counts_are_exact_in_the_gap_around_zero_and_beside_it(near_zero):
    random = np.random.default_rng(0)
    keys, thresholds = keys_of(
        np.concatenate([random.normal(size=20_000), random.normal(size=2000) * 1e-38, np.full(50, near_zero)]),
        np.concatenate([random.normal(size=3000), random.normal(size=2) * 1e-38, [near_zero]]),
    )
    for side in (thresholds, thresholds[thresholds >= 0], thresholds[thresholds <= 0]):
        assert_exact(counted([keys]), keys, np.unique(side))


def test_dense_octaves_become_tables_and_stay_exact():
    # 12 million scores of one octave do not fit 40 MiB as keys, but their table of 32 MiB does.
    random = np.random.default_rng(0)
    keys = random.integers(0, 2**23, 12_000_000, dtype=np.int32) + np.int32(127 << 23)
    stray = keys_of([-3.0, 0.001, 5.0, 5.0, 7.0])[0]
    counts = counted([*np.array_split(keys, 10), stray], budget=40 * 2**20)
    assert counts.exact
    assert [octave for octave, _ in counts._tables.items()] == [127]
    thresholds = np.unique(np.concatenate((random.choice(keys, 1000), stray, stray + 1)))
    assert_exact(counts, np.concatenate((keys, stray)), thresholds)
    other = counted([keys[:5], stray])
    other.merge(counts)
    assert_exact(other, np.concatenate((keys, keys[:5], stray, stray)), thresholds)


@UNHURRIED
@given(st.integers(0, 10**6), st.integers(8, 3000))
def test_coarse_counts_are_exact_at_the_start_of_every_bin(seed, budget):
    random = np.random.default_rng(seed)
    (keys,) = keys_of(random.normal(size=2000))
    counts = counted(np.array_split(keys, 5), budget)
    assert not counts.exact
    thresholds = random.choice(keys, 100)
    dropped = counts.dropped_bits(thresholds)
    starts = np.unique(thresholds >> dropped << dropped)
    _, through = counts.around(starts)
    np.testing.assert_array_equal(through, by_sorting(keys, starts)[1])


@UNHURRIED
@given(st.integers(0, 10**6), st.integers(8, 3000), st.integers(8, 3000))
def test_merged_coarse_counts_are_exact_at_the_start_of_every_bin(seed, budget, other_budget):
    random = np.random.default_rng(seed)
    (keys,) = keys_of(random.normal(size=1500))
    counts, other = counted([keys[:700]], budget), counted([keys[700:]], other_budget)
    counts.merge(other)
    dropped = counts.dropped_bits(keys)
    starts = np.unique(keys >> dropped << dropped)
    np.testing.assert_array_equal(counts.around(starts)[1], by_sorting(keys, starts)[1])


def test_the_budget_holds_and_octaves_with_few_scores_stay_exact():
    (keys,) = keys_of(np.random.default_rng(0).random(100_000))
    counts = counted(np.array_split(keys, 20), budget=200_000)
    assert counts._pending_bytes + counts._settled_bytes() <= 200_000
    below_half, below_a_thousandth = counts.dropped_bits(keys_of([0.4, 0.0007])[0])
    assert below_half > 0
    assert below_a_thousandth == 0


@pytest.mark.parametrize(("budget", "bits"), [(300_000, [9, 9, 9, 9]), (250_000, [10, 10, 9, 9])])
def test_octaves_lose_bits_evenly_and_the_lowest_first(budget, bits):
    # Four octaves of 20,000 scores: a table with 9 bits dropped takes 64 KiB, one with 10 takes 32 KiB.
    random = np.random.default_rng(0)
    (keys,) = keys_of(np.concatenate([random.uniform(low, 2 * low, 20_000) for low in (1, 2, 4, 8)]))
    assert counted([keys], budget).dropped_bits(keys_of([1, 2, 4, 8])[0]).tolist() == bits


def test_tables_widen_before_an_entry_can_overflow(monkeypatch):
    monkeypatch.setattr(counts_module, "_UINT32_MAX", 1500)
    (keys,) = keys_of(np.full(2000, 0.5))
    counts = counted(np.array_split(keys, 4), budget=600)
    assert {table.counts.dtype for table in counts._tables.values()} == {np.dtype(np.uint64)}
    assert counts.around(keys[:1])[1].tolist() == [2000]
