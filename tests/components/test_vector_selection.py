from __future__ import annotations

import json
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load

from zsadbench.components.sentence_means import RULES, select
from zsadbench.errors import UnknownName, UsageError

PARITY = Path(__file__).resolve().parents[3] / "shared" / "parity"


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def bundle(count: int, direction: int, spread: float = 0.1, width: int = 16, seed: int = 0) -> np.ndarray:
    """Return rows of different lengths around one axis."""
    rng = np.random.default_rng(seed)
    rows = unit(np.eye(width)[direction] + spread * rng.standard_normal((count, width)))
    return rows * rng.uniform(0.5, 5, (count, 1))


@pytest.mark.parametrize("name", ["rvs_industrial", "rvs_visa"])
@pytest.mark.parametrize("half", [False, True], ids=["exact", "fp16"])
@pytest.mark.filterwarnings("ignore:(mean_shift|dbscan).*plain mean:UserWarning")
def test_rules_agree_with_the_reference_code(name: str, half: bool) -> None:
    path = PARITY / f"{name}.zip"
    if not path.is_file():
        pytest.skip(f"no parity fixtures at {path}")
    with zipfile.ZipFile(path) as archive:
        fixture: dict[str, Any] = json.loads(archive.read("fixture.json"))
        inputs, outputs = (load(archive.read(f"{part}.safetensors")) for part in ("inputs", "outputs"))
    options = fixture["options"]
    assert options["rules"] == ["mean", "pca", "kde", "mean_shift", "dbscan"]
    for rule in options["rules"]:
        if half and rule == "mean":
            continue  # the repository never rounds the plain mean
        given_options = options[rule] if rule in ("kde", "mean_shift", "dbscan") else {}
        parameters = {key: value for key, value in given_options.items() if key not in ("kernel", "metric")}
        rows = [select(inputs[f"{kind}_embeddings"], rule, half=half, **parameters) for kind in ("normal", "abnormal")]
        key = f"{rule}_fp16" if half else rule
        np.testing.assert_allclose(rows, outputs[key], atol=fixture["outputs"][key]["atol"], rtol=0, err_msg=key)


@pytest.mark.filterwarnings("ignore:(mean_shift|dbscan).*plain mean:UserWarning")
@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 999), count=st.integers(1, 40))
def test_every_rule_gives_a_unit_vector_whatever_the_order_of_the_rows(rule: Any, seed: int, count: int) -> None:
    rows = np.concatenate([bundle(count, 0, spread=0.02, seed=seed), bundle(count + 20, 1, spread=0.02, seed=seed)])
    chosen = select(rows, rule)
    assert chosen.shape == (16,)
    np.testing.assert_allclose(np.linalg.norm(chosen), 1, atol=1e-12)
    shuffled = np.random.default_rng(seed).permutation(rows)
    np.testing.assert_allclose(select(shuffled, rule), chosen, atol=1e-9)


@pytest.mark.parametrize("rule", ["mean", "pca", "kde"])
def test_lengths_of_rows_do_not_matter_except_for_the_raw_mean(rule: Any) -> None:
    rows = bundle(20, 0, spread=0.5)
    np.testing.assert_allclose(select(rows, rule), select(unit(rows), rule), atol=1e-12)
    assert np.abs(select(rows, "mean_raw") - select(unit(rows), "mean_raw")).max() > 1e-3


def test_the_two_means_by_hand() -> None:
    rows = np.array([[3.0, 0.0], [0.0, 4.0]])
    np.testing.assert_allclose(select(rows, "mean_raw"), [0.6, 0.8])
    np.testing.assert_allclose(select(rows, "mean"), [np.sqrt(0.5)] * 2)


def test_pca_is_the_leading_eigenvector_of_the_sentences_own_covariance() -> None:
    rows = unit(bundle(12, 3, spread=0.6))
    x = (rows - rows.mean(axis=1, keepdims=True)).T
    direction = x @ np.linalg.eigh(x.T @ x)[1][:, -1]
    direction *= np.sign(direction @ rows.mean(axis=0))
    np.testing.assert_allclose(select(rows, "pca"), unit(direction), atol=1e-12)


def test_pca_points_towards_the_mean_for_opposite_data() -> None:
    rows = bundle(12, 3)
    np.testing.assert_allclose(select(-rows, "pca"), -select(rows, "pca"), atol=1e-12)


@pytest.mark.parametrize("width", [4, 640])
def test_kde_weights_are_densities_also_where_float32_overflows(width: int) -> None:
    rows = unit(bundle(30, 1, spread=1 / np.sqrt(width), width=width))
    squares = ((rows[:, None] - rows[None]) ** 2).sum(axis=-1)
    weights = np.exp(-squares / (2 * 0.3**2)).sum(axis=1)  # up to a factor, which the last normalisation removes
    np.testing.assert_allclose(select(rows, "kde"), unit(weights @ rows), atol=1e-10)


def test_dbscan_is_the_mean_of_the_largest_cluster_without_noise() -> None:
    large, small = bundle(30, 0, spread=0.02), bundle(20, 1, spread=0.02)
    noise = np.eye(16)[5:10]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        chosen = select(np.concatenate([small, noise, large]), "dbscan")
    np.testing.assert_allclose(chosen, select(large, "mean"), atol=1e-12)


def test_dbscan_parameters_are_passed_on() -> None:
    rows = np.concatenate([bundle(30, 0, spread=0.02), bundle(20, 1, spread=0.02)])
    with pytest.warns(UserWarning, match=r"dbscan\(eps=1.5, min_samples=25\) put all sentences into one cluster"):
        chosen = select(rows, "dbscan", eps=1.5, min_samples=25)
    np.testing.assert_allclose(chosen, select(rows, "mean"), atol=1e-12)


def test_dbscan_without_a_cluster_warns_and_gives_the_mean() -> None:
    rows = np.eye(16)[:14]
    with pytest.warns(UserWarning, match="found no cluster"):
        chosen = select(rows, "dbscan")
    np.testing.assert_allclose(chosen, select(rows, "mean"), atol=1e-12)


def test_mean_shift_with_the_published_bandwidth_is_the_mean_and_says_so() -> None:
    rows = np.concatenate([bundle(15, 0), bundle(5, 1), -bundle(2, 3)])
    with pytest.warns(UserWarning, match=r"mean_shift\(bandwidth=2.0\) put all sentences into one cluster"):
        chosen = select(rows, "mean_shift")
    np.testing.assert_allclose(chosen, select(rows, "mean"), atol=1e-12)


def test_mean_shift_with_a_smaller_bandwidth_takes_the_largest_cluster() -> None:
    large, small = bundle(15, 0, spread=0.02), bundle(10, 1, spread=0.02)
    chosen = select(np.concatenate([small, large]), "mean_shift", bandwidth=0.5)
    np.testing.assert_allclose(chosen, select(large, "mean"), atol=1e-12)


def test_half_rounds_before_the_last_normalisation() -> None:
    rows = bundle(10, 0, spread=0.3)
    rounded = unit(unit(rows).mean(axis=0).astype(np.float16).astype(np.float64))
    np.testing.assert_array_equal(select(rows, "mean", half=True), rounded)
    assert np.abs(rounded - select(rows, "mean")).max() > 1e-6


def test_input_is_left_as_it_was() -> None:
    rows = bundle(10, 0).astype(np.float32)
    before = rows.copy()
    select(rows, "mean")
    np.testing.assert_array_equal(rows, before)


def test_unknown_rule_offers_the_known_one() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'dbscan'"):
        select(np.eye(3), "dbscam")  # type: ignore[arg-type]  # the wrong name is the point


@pytest.mark.parametrize("shape", [(0, 4), (4,)])
def test_rows_are_required(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="expected \\[n, D\\]"):
        select(np.zeros(shape), "mean")
