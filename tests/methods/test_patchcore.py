"""PatchCore: the memory bank, its coreset and the re-weighted score, against slow loops."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from zsadbench import encoders, methods
from zsadbench.components import mutual
from zsadbench.components.similarity import unit
from zsadbench.datasets import Category
from zsadbench.errors import OptionError, UsageError
from zsadbench.methods import Method
from zsadbench.running.loading import from_tensor
from zsadbench.support import plugins
from zsadbench.testing import check_method, toy_images

patchcore = plugins.load("zsadbench.methods", "patchcore")
CATEGORY = Category("metal_nut", "metal nut", "toy")
ENCODER = encoders.load("tiny")
IMAGES = toy_images(5, ENCODER.size)


def random_units(*shape: int, seed: int = 0) -> Tensor:
    return unit(torch.randn(shape, generator=torch.Generator().manual_seed(seed)))


def remembering(images: Tensor, **changes: Any) -> Method:
    method = methods.create("patchcore", encoder=ENCODER, shots=len(images), **changes)
    method.remember(from_tensor(images, CATEGORY))
    return method


@pytest.mark.parametrize("encoder", ["tiny", "demo"])
@pytest.mark.parametrize("name", ["patchcore", "patchcore.2shot", "patchcore.4shot"])
def test_patchcore_keeps_the_contract(name: str, encoder: str) -> None:
    check_method(name, encoder)


def test_patchcore_keeps_the_contract_with_coreset_and_weights() -> None:
    check_method("patchcore.2shot", coreset=0.25, reweight=5)


def test_presets_name_their_number_of_shots() -> None:
    shots = {name: config.shots for name, config in patchcore.PatchCore.presets.items()}
    assert shots == {"1shot": 1, "2shot": 2, "4shot": 4}


def test_layers_default_to_the_ends_of_the_second_and_third_stage() -> None:
    assert methods.create("patchcore", encoder=ENCODER).layers == (6, 9)


def test_both_layers_count_alike_in_a_patch() -> None:
    method = remembering(IMAGES[:1])
    batch = from_tensor(IMAGES, CATEGORY)
    patches = method.patches(batch)
    features = batch.features(ENCODER, method.request)
    for half, layer in zip(patches.chunk(2, dim=2), (6, 9), strict=True):
        torch.testing.assert_close(half * math.sqrt(2), mutual.aggregate(features.tokens(layer), 3))


def test_map_is_the_distance_to_the_nearest_patch_of_the_references() -> None:
    method = remembering(IMAGES[:2])
    batch = from_tensor(IMAGES[2:], CATEGORY)
    scores, maps = method.predict(batch)
    bank = method.patches(from_tensor(IMAGES[:2], CATEGORY)).flatten(0, 1)
    for image, patches in enumerate(method.patches(batch)):
        expected = torch.stack([(bank - patch).norm(dim=1).min() for patch in patches])
        torch.testing.assert_close(maps[image].flatten(), expected, rtol=1e-4, atol=1e-5)
        assert scores[image] == maps[image].max()


def test_distances_in_blocks_equal_one_product(monkeypatch: pytest.MonkeyPatch) -> None:
    patches, bank = random_units(30, 4), random_units(7, 4, seed=1)
    expected = patchcore.nearest_rows(patches, bank)
    monkeypatch.setattr(mutual, "BLOCK_ELEMENTS", 20)
    for part, whole in zip(patchcore.nearest_rows(patches, bank), expected, strict=True):
        torch.testing.assert_close(part, whole)


def test_a_remembered_image_has_no_anomaly() -> None:
    scores, _ = remembering(IMAGES[:2]).predict(from_tensor(IMAGES, CATEGORY))
    assert scores[:2].max() < 2e-3  # float32 cosines near 1 give distances up to sqrt(2e-7) or so
    assert scores[2:].min() > 0.1


def slow_coreset(bank: Tensor, count: int, first: int) -> list[int]:
    chosen = [first]
    while len(chosen) < count:
        gaps = [min(float((row - bank[i]).norm()) for i in chosen) for row in bank]
        chosen.append(max(range(len(bank)), key=gaps.__getitem__))
    return chosen


@pytest.mark.parametrize("seed", [0, 1])
def test_coreset_equals_a_slow_farthest_point_selection(seed: int) -> None:
    bank = random_units(40, 5)
    chosen = patchcore.greedy_coreset(bank, 10, seed).tolist()
    assert chosen == slow_coreset(bank, 10, chosen[0])


def test_first_row_of_the_coreset_is_drawn_from_the_seed() -> None:
    bank = random_units(40, 5)
    firsts = [int(patchcore.greedy_coreset(bank, 1, seed)) for seed in range(8)]
    assert len(set(firsts)) > 3
    assert firsts == [int(patchcore.greedy_coreset(bank, 1, seed)) for seed in range(8)]


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 12), st.integers(0, 100))
def test_coreset_finds_every_different_row_before_a_copy(different: int, seed: int) -> None:
    rows = random_units(different, 16)
    bank = rows[torch.arange(3 * different) % different]
    chosen = patchcore.greedy_coreset(bank, different, seed)
    assert {int(i) % different for i in chosen} == set(range(different))


def test_coreset_keeps_its_share_of_the_bank() -> None:
    whole, quarter = remembering(IMAGES[:2]), remembering(IMAGES[:2], coreset=0.25)
    assert len(whole.memory[1]) == 2 * ENCODER.grid**2
    assert len(quarter.memory[1]) == ENCODER.grid**2 / 2
    batch = from_tensor(IMAGES[2:], CATEGORY)
    assert (quarter.predict(batch).maps >= whole.predict(batch).maps - 1e-6).all()  # fewer rows are never nearer


def test_reweighted_score_follows_equation_seven() -> None:
    references, batch = IMAGES[:1], from_tensor(IMAGES[1:], CATEGORY)
    method = remembering(references, reweight=4)
    plain, weighted = remembering(references).predict(batch), method.predict(batch)
    assert torch.equal(plain.maps, weighted.maps)
    bank = method.patches(from_tensor(references, CATEGORY))[0]
    for image, patches in enumerate(method.patches(batch)):
        gaps = torch.cdist(patches, bank, compute_mode="donot_use_mm_for_euclid_dist")
        worst = int(gaps.amin(dim=1).argmax())
        nearest = int(gaps[worst].argmin())
        order = sorted(range(len(bank)), key=lambda row, row0=nearest: float((bank[row] - bank[row0]).norm()))
        total = sum(math.exp(float(gaps[worst, row])) for row in order[:4])
        expected = (1 - math.exp(float(gaps[worst, nearest])) / total) * float(gaps[worst, nearest])
        assert weighted.scores[image].item() == pytest.approx(expected, rel=1e-4)
        assert weighted.scores[image] < plain.scores[image]


def test_more_neighbours_than_rows_are_all_rows() -> None:
    bank, patches = random_units(3, 4), random_units(2, 4, seed=1)
    rows = bank[patchcore.nearest_rows(patches, bank)[1]]
    assert torch.equal(patchcore.weights(patches, rows, bank, 9), patchcore.weights(patches, rows, bank, 3))


@pytest.mark.parametrize("remembered", [None, Category("screw", "screw", "toy")])
def test_predicting_without_references_of_the_category_is_an_error(remembered: Category | None) -> None:
    method = methods.create("patchcore", encoder=ENCODER)
    if remembered:
        method.remember(from_tensor(IMAGES[:1], remembered))
    with pytest.raises(UsageError, match=r"patchcore knows no references of category 'metal_nut'"):
        method.predict(from_tensor(IMAGES[:1], CATEGORY))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shots": 0}, "at least 1 normal reference"),
        ({"neighbourhood": 2}, "expected an odd side"),
        ({"coreset": 0.0}, "expected a share of the bank"),
        ({"coreset": 1.5}, "expected a share of the bank"),
        ({"reweight": 1}, "expected 0 .off. or at least 2"),
    ],
)
def test_options_out_of_range_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        methods.create("patchcore", encoder=ENCODER, **changes)


def test_card_says_that_the_encoder_is_not_the_papers() -> None:
    assert "Approximation" in patchcore.PatchCore.card.notes
    assert "WideResNet50" in patchcore.PatchCore.card.notes
