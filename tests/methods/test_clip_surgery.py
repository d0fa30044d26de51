"""CLIP Surgery: the path of the last blocks, what similarities lose, and the CLIP-AD baseline around them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from zsadbench import encoders, methods
from zsadbench.components import prompts
from zsadbench.components.similarity import unit
from zsadbench.datasets import Category
from zsadbench.encoders import open_clip, tiny
from zsadbench.encoders.features import FeatureRequest
from zsadbench.errors import OptionError, WeightsError
from zsadbench.running.loading import from_tensor
from zsadbench.support import plugins
from zsadbench.testing import check_method, toy_images

clip_surgery = plugins.load("zsadbench.methods", "clip_surgery")
pytestmark = pytest.mark.filterwarnings("ignore:dbscan")  # the tiny encoder puts sentences into one cluster
CATEGORY = Category("metal_nut", "metal nut", "toy")
GRID = 8  # of the tiny encoder


@pytest.fixture(scope="module")
def encoder() -> encoders.base.Encoder:
    return encoders.load("tiny")


def random_units(*shape: int, seed: int = 0) -> Tensor:
    return unit(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize(
    "changes",
    [
        {"image_score": "sum"},
        {"image_score": "minmax_sum", "start": "attention", "blocks": 12},
        {"similarity": "empty_text", "image_score": "class_token", "minmax_maps": True},
        {"similarity": "plain", "blocks": 12},
    ],
)
def test_options_keep_the_contract(changes: dict) -> None:
    check_method("clip_surgery", **changes)


def surgery_tokens(encoder: encoders.base.Encoder, images: Tensor, blocks: int, start: str) -> Tensor:
    """Run both paths block by block as the page says, attention written out: [B, 1 + L, J]."""
    x = encoder.tower.norm_pre(encoder.embed(images))
    path = None
    for index, block in enumerate(encoder.blocks):
        _, _, v = block.qkv(block.norm1(x))
        value_attention = block.out(torch.softmax(v @ v.transpose(-2, -1) * block.scale, dim=-1) @ v)
        if index >= encoder.depth - blocks:
            if path is None:
                path = x.clone() if start == "residual" else torch.zeros_like(x)
            path = path + value_attention
        x = block(x)
    return encoder.project(torch.cat([x[:, :1], path[:, 1:]], dim=1))


@pytest.mark.parametrize("start", ["residual", "attention"])
@pytest.mark.parametrize("blocks", [1, 6, 12])
def test_maps_equal_the_formulas_of_the_page(encoder: encoders.base.Encoder, blocks: int, start: str) -> None:
    method = methods.create("clip_surgery", encoder=encoder, blocks=blocks, start=start)
    batch = from_tensor(toy_images(2, encoder.size), CATEGORY)
    text = method.text(CATEGORY)
    cosines = unit(surgery_tokens(encoder, batch.images, blocks, start)) @ text.T
    p = (2 * cosines[:, 0]).softmax(dim=-1)  # of the class token, [B, 2]
    expected = p[:, 1:] * cosines[:, 1:, 1] - p[:, :1] * cosines[:, 1:, 0]
    torch.testing.assert_close(method.predict(batch).maps.flatten(1), expected, rtol=1e-4, atol=1e-6)


def test_label_surgery_equals_a_loop_over_labels() -> None:
    tokens, text = random_units(1, 5, 16), random_units(4, 16, seed=1)
    weights = [float(torch.exp(3 * tokens[0, 0] @ label)) for label in text]
    mean = sum(weights) / len(weights)
    weighted = torch.stack([weight / mean * (tokens[0] @ label) for weight, label in zip(weights, text, strict=True)])
    torch.testing.assert_close(clip_surgery.label_surgery(tokens, text, 3.0)[0], (weighted - weighted.mean(0)).T)


def test_what_label_surgery_leaves_sums_to_zero_over_labels() -> None:
    similarity = clip_surgery.label_surgery(random_units(2, 9, 16), random_units(5, 16, seed=1), 2.0)
    torch.testing.assert_close(similarity.sum(dim=-1), torch.zeros(2, 9), rtol=0, atol=1e-6)


def test_empty_text_is_subtracted_from_the_abnormal_label(encoder: encoders.base.Encoder) -> None:
    method = methods.create("clip_surgery", encoder=encoder, similarity="empty_text")
    batch = from_tensor(toy_images(1, encoder.size), CATEGORY)
    templates = prompts.get("clip_surgery").templates
    empty = unit(unit(encoder.text.encode([template.format("") for template in templates])).mean(dim=0))
    tokens = unit(surgery_tokens(encoder, batch.images, 6, "residual"))[0, 1:]
    expected = tokens @ method.text(CATEGORY)[1] - tokens @ empty
    torch.testing.assert_close(method.predict(batch).maps.flatten(), expected, rtol=1e-4, atol=1e-6)


def test_direct_preset_compares_plain_patch_tokens_with_text(encoder: encoders.base.Encoder) -> None:
    method = methods.create("clip_surgery.direct", encoder=encoder)
    batch = from_tensor(toy_images(2, encoder.size), CATEGORY)
    features = encoder.encode(batch.images, FeatureRequest(tokens={encoder.depth}))
    normal, abnormal = (unit(encoder.project(features.tokens(encoder.depth))) @ method.text(CATEGORY).T).unbind(-1)
    torch.testing.assert_close(method.predict(batch).maps.flatten(1), abnormal - normal, rtol=1e-4, atol=1e-6)


def test_minmax_maps_fill_zero_to_one_in_each_image(encoder: encoders.base.Encoder) -> None:
    batch = from_tensor(toy_images(3, encoder.size), CATEGORY)
    plain = methods.create("clip_surgery", encoder=encoder).predict(batch).maps
    scaled = methods.create("clip_surgery", encoder=encoder, minmax_maps=True).predict(batch).maps
    assert scaled.amin(dim=(1, 2)).tolist() == [0, 0, 0]
    assert scaled.amax(dim=(1, 2)).tolist() == [1, 1, 1]
    assert torch.equal(scaled.flatten(1).argsort(dim=1), plain.flatten(1).argsort(dim=1))


def test_only_scaled_image_scores_depend_on_the_category_and_maps_never_do(encoder: encoders.base.Encoder) -> None:
    scopes = {
        rule: methods.create("clip_surgery", encoder=encoder, image_score=rule).image_scope
        for rule in ("minmax_sum", "sum", "class_token")
    }
    assert scopes == {"minmax_sum": "category", "sum": "image", "class_token": "image"}
    assert methods.create("clip_surgery", encoder=encoder).scope == "image"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, FeatureRequest(tokens={6}, vv=range(7, 13), cls=True)),
        ({"blocks": 2, "start": "attention"}, FeatureRequest(vv={11, 12}, cls=True)),
        ({"path": "original"}, FeatureRequest(tokens={12}, cls=True)),
    ],
)
def test_request_names_what_the_path_needs_and_no_more(
    encoder: encoders.base.Encoder, changes: dict, expected: FeatureRequest
) -> None:
    assert methods.create("clip_surgery", encoder=encoder, **changes).request == expected


@pytest.mark.parametrize("blocks", [0, 13])
def test_more_blocks_than_the_encoder_has_are_refused(encoder: encoders.base.Encoder, blocks: int) -> None:
    with pytest.raises(OptionError, match="expected 1 to 12"):
        methods.create("clip_surgery", encoder=encoder, blocks=blocks)


def test_encoder_without_text_tower_is_refused() -> None:
    visual = {name: tensor for name, tensor in tiny.tensors().items() if name.startswith("visual.")}
    with pytest.raises(WeightsError, match="no text tower"):
        methods.create(
            "clip_surgery", encoder=open_clip.from_config(tiny.CONFIG, visual, spec="blind"), similarity="empty_text"
        )
