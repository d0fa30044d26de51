"""Dual-image CLIP: text map and partner map, against slow loops; the card says that it is an approximation."""

from __future__ import annotations

import pytest
import torch

from zsadbench import encoders, methods
from zsadbench.components.similarity import unit
from zsadbench.datasets import Category
from zsadbench.encoders import open_clip, tiny
from zsadbench.encoders.features import FeatureRequest
from zsadbench.errors import UsageError, WeightsError
from zsadbench.running.loading import from_tensor
from zsadbench.support import plugins
from zsadbench.testing import check_method, toy_images

dual_image_clip = plugins.load("zsadbench.methods", "dual_image_clip")
CATEGORY = Category("metal_nut", "metal nut", "toy")


@pytest.mark.parametrize("encoder", ["tiny", "demo"])
def test_dual_image_clip_keeps_the_contract(encoder: str) -> None:
    check_method("dual_image_clip", encoder)


def test_prediction_equals_the_formulas_of_the_page() -> None:
    encoder = encoders.load("tiny")
    method = methods.create("dual_image_clip", encoder=encoder, temperature=10.0)
    batch = from_tensor(toy_images(2, encoder.size), CATEGORY)
    text = method.text(CATEGORY)
    layers = (3, 6, 9, 12)
    features = encoder.encode(batch.images, FeatureRequest(tokens=layers, vv={12}, cls=True))
    scores, maps = method.predict(batch)
    for query, partner in ((0, 1), (1, 0)):
        expected = torch.zeros(encoder.grid**2)
        for patch in range(encoder.grid**2):
            for layer in layers:
                tokens = unit(features.tokens(layer))
                nearest = max(float(tokens[query, patch] @ other) for other in tokens[partner])
                expected[patch] += (1 - nearest) / 2 / len(layers)
        local = unit(encoder.project(features.vv(12)[query, 1:]))
        expected = (expected + (local @ text.T * 10).softmax(dim=1)[:, 1]) / 2
        image = (unit(features.embedding[query]) @ text.T * 10).softmax(dim=0)[1]
        torch.testing.assert_close(maps[query].flatten(), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(scores[query], (image + expected.max()) / 2, rtol=1e-4, atol=1e-5)


def test_images_are_scored_in_pairs() -> None:
    method = methods.create("dual_image_clip", encoder="tiny")
    assert (method.scope, method.batch_images) == ("batch", 2)


def test_an_image_without_partner_is_an_error() -> None:
    method = methods.create("dual_image_clip", encoder="tiny")
    with pytest.raises(UsageError, match="dual_image_clip compares the images of a category"):
        method.predict(from_tensor(toy_images(1, 64), CATEGORY))


def test_encoder_without_text_tower_is_refused_when_the_method_is_made() -> None:
    visual = {name: tensor for name, tensor in tiny.tensors().items() if name.startswith("visual.")}
    with pytest.raises(WeightsError, match="no text tower"):
        methods.create("dual_image_clip", encoder=open_clip.from_config(tiny.CONFIG, visual, spec="blind"))


def test_card_and_title_say_that_it_is_an_approximation() -> None:
    card = dual_image_clip.DualImageClip.card
    assert "approximation" in card.title
    assert "not comparable" in card.notes
