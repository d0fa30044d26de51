"""Cosine similarity with text and memories, and the text features of a category."""

from __future__ import annotations

import math

import pytest
import torch

from zsadbench import encoders
from zsadbench.components import prompts, similarity
from zsadbench.components.similarity import CategoryText, abnormal_logit, nearest_distance, unit
from zsadbench.datasets import Category
from zsadbench.encoders import open_clip, tiny
from zsadbench.errors import WeightsError

CATEGORY = Category("metal_nut", "metal nut", "toy")


def random_units(*shape: int, seed: int = 0) -> torch.Tensor:
    return unit(torch.randn(shape, generator=torch.Generator().manual_seed(seed)))


def test_sigmoid_of_the_abnormal_logit_is_the_two_class_softmax() -> None:
    features, text = random_units(3, 5, 8), random_units(2, 8, seed=1)
    softmax = (features @ text.T / 0.07).softmax(dim=-1)[..., 1]
    torch.testing.assert_close(abnormal_logit(features, text, 1 / 0.07).sigmoid(), softmax)


def test_nearest_distance_is_the_smallest_cosine_distance_to_the_memory() -> None:
    tokens, memory = random_units(2, 3, 4), random_units(5, 4, seed=1)
    expected = [[min(1 - float(token @ row) for row in memory) for token in image] for image in tokens]
    torch.testing.assert_close(nearest_distance(tokens, memory), torch.tensor(expected))


def test_nearest_distance_in_blocks_equals_one_product(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens, memory = random_units(2, 30, 4), random_units(5, 4, seed=1)
    expected = nearest_distance(tokens, memory)
    monkeypatch.setattr(similarity, "BLOCK_ELEMENTS", 35)
    torch.testing.assert_close(nearest_distance(tokens, memory), expected)


def test_nearest_distance_to_itself_is_zero_and_never_negative() -> None:
    tokens = random_units(1, 200, 16)
    distance = nearest_distance(tokens, tokens[0])
    assert float(distance.min()) >= 0
    assert math.isclose(float(distance.max()), 0, abs_tol=1e-6)


def test_text_features_use_the_folder_name_or_the_noun() -> None:
    encoder = encoders.load("tiny")
    prompt_list = prompts.get("winclip")
    for noun, word in (("raw", "metal_nut"), ("readable", "metal nut")):
        text = CategoryText(encoder, "winclip", noun=noun, ensemble="mean_raw")
        expected = prompts.text_features(encoder.text, prompt_list, word, "mean_raw")
        assert torch.equal(text(CATEGORY), expected)


def test_text_features_are_computed_once_a_category_and_may_be_trained_against() -> None:
    text = CategoryText(encoders.load("tiny"), "winclip", noun="raw")
    with torch.inference_mode():
        first = text(CATEGORY)
    assert text(CATEGORY) is first
    assert text(Category("screw", "screw", "toy")) is not first
    features = random_units(3, first.shape[1]).requires_grad_()
    abnormal_logit(features, first, 1.0).sum().backward()
    assert features.grad is not None


def test_encoder_without_text_tower_is_an_error_that_names_it() -> None:
    visual = {name: tensor for name, tensor in tiny.tensors().items() if name.startswith("visual.")}
    encoder = open_clip.from_config(tiny.CONFIG, visual, spec="blind")
    with pytest.raises(WeightsError, match=r"'blind' has no text tower.*--encoder SPEC"):
        CategoryText(encoder, "winclip", noun="raw")
