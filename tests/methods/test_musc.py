"""MuSc: neighbourhood aggregation, mutual scoring and re-scoring, against slow loops."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from zsadbench import encoders, methods
from zsadbench.components import mutual
from zsadbench.components.postprocess import resize_maps
from zsadbench.components.similarity import unit
from zsadbench.datasets import Category
from zsadbench.errors import OptionError, UsageError
from zsadbench.running.loading import ChunkStore, batch_of, from_tensor
from zsadbench.support import plugins
from zsadbench.testing import check_method, toy_images

musc = plugins.load("zsadbench.methods", "musc")
CATEGORY = Category("metal_nut", "metal nut", "toy")


def random_tensor(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", ["musc", "musc.visa", "musc.no_rscin", "musc.pair"])
def test_musc_keeps_the_contract(name: str) -> None:
    check_method(name)


@pytest.mark.parametrize(("first", "last"), [(0, 1), (0, 3), (1, 3), (2, 4)])
def test_mutual_scores_are_mean_distances_to_the_closest_other_images(first: int, last: int) -> None:
    tokens = unit(random_tensor(5, 4, 6))
    scores = musc.mutual_scores(mutual.nearest_similarities(tokens), first, last)
    for i, patch in itertools.product(range(5), range(4)):
        distances = sorted(float(torch.cdist(tokens[i, patch][None], tokens[j]).min()) for j in range(5) if j != i)
        expected = sum(distances[first:last]) / (last - first)
        assert scores[i, patch].item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("count", "low", "high", "expected"),
    [
        (200, 0, 0.3, (0, 59)),  # 0.3 * 199 = 59.7, truncated
        (4, 0, 0.3, (0, 1)),  # a fraction of 3 that truncates to no image: one scores
        (2, 0, 1, (0, 1)),  # a count
        (11, 0.1, 0.3, (1, 3)),
        (5, 0, 30, (0, 4)),  # no more than there are
        (9, 2, 5, (2, 5)),
    ],
)
def test_fractions_and_counts_of_closest_images(count: int, low: float, high: float, expected: tuple[int, int]) -> None:
    assert musc.neighbours(count, low, high) == expected


def test_options_that_leave_no_image_are_refused() -> None:
    with pytest.raises(OptionError, match=r"topmin_min=0.5 and musc.topmin_max=0.3 leave no image of 20 others"):
        musc.neighbours(21, 0.5, 0.3)


def test_rescoring_equals_a_loop_over_the_most_similar_images() -> None:
    scores, embeddings = random_tensor(6), unit(random_tensor(6, 4, seed=1))
    scaled = (scores - scores.min()) / (scores.max() - scores.min())
    similarity = embeddings @ embeddings.T
    expected = []
    for i in range(6):
        values = []
        for k in (1, 2, 4):
            nearest = sorted(range(6), key=lambda j: -float(similarity[i, j]))[:k]
            weights = [float(similarity[i, j]) for j in nearest]
            values.append(sum(w * float(scaled[j]) for w, j in zip(weights, nearest, strict=True)) / sum(weights))
        expected.append(sum(values) / 3)
    torch.testing.assert_close(musc.rescore(scores, embeddings, (1, 2, 4)), torch.tensor(expected))


def test_rescoring_with_a_window_of_one_only_scales_the_scores() -> None:
    rescored = musc.rescore(torch.tensor([3.0, 1.0, 2.0]), unit(random_tensor(3, 4)), (1,))
    assert rescored.tolist() == [1, 0, 0.5]


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 6), st.floats(-5, 5, width=32))
def test_rescoring_equal_scores_and_few_images_stays_finite(count: int, value: float) -> None:
    rescored = musc.rescore(torch.full((count,), value), unit(random_tensor(count, 4).abs()), (1, 8, 9))
    assert rescored.tolist() == [0] * count


def test_image_score_is_the_peak_of_the_map_at_the_input_size() -> None:
    method = methods.create("musc.no_rscin", encoder="tiny")
    scores, maps = method.predict(from_tensor(toy_images(4, 64), CATEGORY))
    torch.testing.assert_close(scores, resize_maps(maps, 64, align_corners=True).amax(dim=(1, 2)))


def test_layers_and_neighbourhoods_are_averaged() -> None:
    encoder = encoders.load("tiny")
    batch = from_tensor(toy_images(4, 64), CATEGORY)
    together = methods.create("musc.no_rscin", encoder=encoder, layers=(3, 12), neighbourhoods=(1, 3)).predict(batch)
    alone = [
        methods.create("musc.no_rscin", encoder=encoder, layers=(layer,), neighbourhoods=(side,)).predict(batch).maps
        for layer, side in itertools.product((3, 12), (1, 3))
    ]
    torch.testing.assert_close(together.maps, torch.stack(alone).mean(dim=0))


def test_walking_in_parts_gives_the_result_of_one_batch() -> None:
    images = toy_images(5, 64)
    method = methods.create("musc", encoder="tiny")
    whole = from_tensor(images, CATEGORY)
    store = ChunkStore(whole.paths, 2, dict(zip(whole.paths, images, strict=True)).__getitem__)
    parts = method.predict(batch_of(store, CATEGORY, 0, 5))
    expected = method.predict(whole)
    torch.testing.assert_close(parts.maps, expected.maps, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(parts.scores, expected.scores, rtol=1e-3, atol=1e-4)


def test_an_image_unlike_the_others_scores_highest() -> None:
    images = torch.cat([toy_images(1, 64).expand(4, -1, -1, -1), toy_images(1, 64, seed=5)])
    scores, maps = methods.create("musc", encoder="tiny").predict(from_tensor(images, CATEGORY))
    assert scores.argmax() == 4
    assert maps.mean(dim=(1, 2)).argmax() == 4


def test_one_image_alone_is_an_error() -> None:
    method = methods.create("musc", encoder="tiny")
    with pytest.raises(UsageError, match=r"'metal_nut' has one image here, expected at least 2"):
        method.predict(from_tensor(toy_images(1, 64), CATEGORY))


def test_an_even_neighbourhood_is_refused() -> None:
    with pytest.raises(OptionError, match="expected odd sides"):
        methods.create("musc", encoder="tiny", neighbourhoods=(1, 2))


def test_pairs_narrow_the_scope_to_batches_of_two() -> None:
    pair = methods.create("musc.pair", encoder="tiny")
    assert (pair.scope, pair.batch_images) == ("batch", 2)
    assert methods.create("musc", encoder="tiny").scope == "category"


def test_presets_of_the_paper_differ_in_the_windows_of_similar_images() -> None:
    presets = musc.Musc.presets
    assert presets["mvtec"].rscin_windows == (1, 2, 3)
    assert presets["visa"].rscin_windows == (1, 8, 9)
    assert methods.create("musc.mvtec", encoder="tiny").name == "musc"


def test_layers_default_to_four_equal_stages() -> None:
    assert methods.create("musc", encoder="tiny").layers == (3, 6, 9, 12)
