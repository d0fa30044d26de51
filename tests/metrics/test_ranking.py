"""AUROC, AP and F1-max of image scores, against a hand-worked case, scikit-learn and the definition's table."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from zsadbench.errors import MetricError
from zsadbench.metrics import names
from zsadbench.metrics.measure import image_metrics
from zsadbench.metrics.ranking import f1_max, rank

UNHURRIED = settings(deadline=None, max_examples=50)  # machines that run tests may be busy


def test_hand_worked_case_with_a_tie_across_classes():
    # Scores descending: + 4 | - 3, + 3 | - 2 | + 1 | - 0. Pairs: 3 + 2.5 + 1 of 9.
    values = image_metrics(np.array([4.0, 3.0, 3.0, 2.0, 1.0, 0.0]), np.array([1, 0, 1, 0, 1, 0]))
    assert list(values) == list(names("image"))
    assert values["auroc"] == 6.5 / 9
    assert values["ap"] == pytest.approx((1 / 1 + 2 / 3 + 3 / 5) / 3, abs=1e-15)
    assert values["f1_max"] == 2 * 3 / (3 + 2 + 3)  # at 1; at 4 it is 2 / 4, at 3 it is 4 / 6


def test_hand_worked_f1_max_and_its_largest_threshold():
    # F1 at 4: 2 / (1 + 0 + 2); at 2: 4 / (2 + 2 + 2), the same: the larger threshold is reported.
    ranking = rank(np.array([4.0, 3.0, 2.5, 2.0]), np.array([1, 0, 0, 1]))
    assert f1_max(ranking) == (2 / 3, 4.0)


@UNHURRIED
@given(st.integers(0, 10**6), st.integers(2, 60), st.sampled_from([2, 5, 1000]))
def test_image_metrics_agree_with_scikit_learn(seed, count, levels):
    random = np.random.default_rng(seed)
    scores, labels = random.integers(0, levels, count) / 7, random.integers(0, 2, count)
    labels[:2] = 0, 1
    values = image_metrics(scores, labels)
    precision, recall, _ = precision_recall_curve(labels, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    assert values["auroc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert values["ap"] == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
    assert values["f1_max"] == pytest.approx(f1.max(), abs=1e-12)


def test_without_anomalous_images_every_metric_is_undefined():
    assert image_metrics(np.array([0.1, 0.2]), np.array([0, 0])) == {"auroc": None, "f1_max": None, "ap": None}


def test_without_normal_images_auroc_is_undefined_and_the_others_are_one():
    assert image_metrics(np.array([0.1, 0.2]), np.array([1, 1])) == {"auroc": None, "f1_max": 1.0, "ap": 1.0}


def test_equal_scores_give_half_and_the_prevalence():
    values = image_metrics(np.full(5, 0.3), np.array([1, 0, 0, 0, 1]))
    assert values == {"auroc": 0.5, "ap": 2 / 5, "f1_max": pytest.approx(2 * 0.4 / 1.4)}


@pytest.mark.parametrize(("sign", "auroc", "ap", "f1"), [(1, 1, 1, 1), (-1, 0, 0.25, 2 * 0.25 / 1.25)])
def test_perfect_and_inverted_binary_scores(sign, auroc, ap, f1):
    labels = np.array([1, 0, 0, 0])
    assert image_metrics(sign * labels, labels) == {"auroc": auroc, "ap": ap, "f1_max": pytest.approx(f1)}


def test_scores_are_compared_in_the_precision_given():
    close = np.array([1.0, 1.0 + 1e-12])
    assert image_metrics(close, np.array([0, 1]))["auroc"] == 1.0
    assert image_metrics(close.astype(np.float32), np.array([0, 1]))["auroc"] == 0.5


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_an_error_that_names_the_image(bad):
    with pytest.raises(MetricError, match=r"image crack/001\.png is -?(nan|inf)"):
        image_metrics(np.array([0.0, bad]), np.array([0, 1]), ["good/000.png", "crack/001.png"])
    with pytest.raises(MetricError, match="image #1"):
        image_metrics(np.array([0.0, bad]), np.array([0, 1]))


def test_scores_and_labels_of_different_length_are_an_error():
    with pytest.raises(MetricError, match=r"\(3,\).*\(2,\)"):
        image_metrics(np.zeros(3), np.zeros(2))
