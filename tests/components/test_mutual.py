"""Patches compared across images: neighbourhood means, nearest similarities with masks, references, against loops."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor

from zsadbench.components import mutual
from zsadbench.components.similarity import unit
from zsadbench.errors import UsageError


def random_tensor(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def paths(text: str) -> list[Path]:
    return [Path(f"{letter}.png") for letter in text]


def test_normalisation_is_over_each_image_as_a_whole() -> None:
    tokens = 3 + 2 * random_tensor(2, 9, 4)
    normalised = mutual.normalise(tokens)
    for image, raw in zip(normalised, tokens, strict=True):
        torch.testing.assert_close(image, (raw - raw.mean()) / (raw.var(correction=0) + 1e-5).sqrt())


@pytest.mark.parametrize("side", [1, 3, 5])
def test_aggregation_equals_a_loop_over_neighbourhoods(side: int) -> None:
    tokens = random_tensor(9, 16, 3)  # more images than are pooled at once
    reach = side // 2
    expected = torch.zeros(9, 16, 3)
    for image, row, column in itertools.product(range(9), range(4), range(4)):
        for i, j in itertools.product(range(-reach, reach + 1), repeat=2):
            if 0 <= row + i < 4 and 0 <= column + j < 4:
                expected[image, row * 4 + column] += tokens[image, (row + i) * 4 + column + j] / side**2
    torch.testing.assert_close(mutual.aggregate(tokens, side), expected / expected.norm(dim=2, keepdim=True))


def test_aggregation_does_not_change_its_input() -> None:
    tokens = random_tensor(9, 16, 3)
    before = tokens.clone()
    for side in (1, 3):
        mutual.aggregate(tokens, side)
    assert torch.equal(tokens, before)


def slow_nearest(tokens: Tensor, masks: Tensor) -> Tensor:
    """The largest cosine with the unmasked patches of each image, or with all patches where all are masked."""
    count, patches, _ = tokens.shape
    nearest = torch.ones(count, patches, count)
    for i, j, patch in itertools.product(range(count), range(count), range(patches)):
        if i != j:
            usable = [q for q in range(patches) if not masks[j, q]] or list(range(patches))
            nearest[i, patch, j] = max(float(tokens[i, patch] @ tokens[j, q]) for q in usable)
    return nearest


@pytest.mark.parametrize("block", [1, 50, 200, 2**20])
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_nearest_similarities_equal_a_loop_over_image_pairs(
    count: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mutual, "BLOCK_ELEMENTS", block)
    tokens = unit(random_tensor(count, 4, 6))
    nothing = torch.zeros(count, 4, dtype=torch.bool)
    expected = slow_nearest(tokens, nothing)
    torch.testing.assert_close(mutual.nearest_similarities(tokens), expected)
    torch.testing.assert_close(mutual.nearest_similarities(tokens, nothing), expected)


@pytest.mark.parametrize("block", [1, 50, 2**20])
def test_masked_patches_are_no_references_unless_all_of_an_image_are_masked(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mutual, "BLOCK_ELEMENTS", block)
    tokens = unit(random_tensor(5, 4, 6))
    masks = random_tensor(5, 4, seed=1) > 0
    masks[2] = True
    assert masks.any(dim=1).sum() > 2  # the case is a real one
    expected = slow_nearest(tokens, masks)
    torch.testing.assert_close(mutual.nearest_similarities(tokens, masks), expected)
    assert not torch.allclose(mutual.nearest_similarities(tokens), expected)


def test_distance_is_that_of_unit_vectors() -> None:
    one, other = unit(random_tensor(20, 6)), unit(random_tensor(20, 6, seed=1))
    torch.testing.assert_close(mutual.distance((one * other).sum(dim=1)), (one - other).norm(dim=1))
    assert mutual.distance(torch.tensor([1 + 1e-6, -1])).tolist() == [0, 2]


def test_neither_an_image_nor_its_copy_is_a_reference() -> None:
    assert mutual.other_images(paths("ab"), "m").tolist() == [[False, True], [True, False]]
    assert mutual.other_images(paths("aba"), "m")[0].tolist() == [False, True, False]


@pytest.mark.parametrize("names", ["a", "aa"])
def test_an_image_without_reference_is_an_error(names: str) -> None:
    with pytest.raises(UsageError, match=r"fiseclip compares .* got 1 different image in a batch, expected at least 2"):
        mutual.other_images(paths(names), "fiseclip")


def test_values_are_reduced_over_references_alone() -> None:
    values = torch.tensor([[[9.0, 1, 3]], [[2, 9, 4]], [[5, 7, 9]]])
    others = ~torch.eye(3, dtype=torch.bool)
    assert mutual.over_others(values, others).tolist() == [[2], [3], [6]]
    assert mutual.over_others(values, others, "min").tolist() == [[1], [2], [5]]


@pytest.mark.parametrize(("count", "size"), [(2, 1), (7, 2), (9, 100), (16, 3)])
def test_blocks_hold_each_pair_of_images_once(count, size):
    pairs = [
        (i, j)
        for left, right in mutual._pair_blocks(0, count, size)
        for i in range(left.start, left.stop)
        for j in range(right.start, right.stop)
    ]
    assert sorted(pairs) == [(i, j) for i in range(count) for j in range(i + 1, count)]
