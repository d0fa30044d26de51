"""CLIP-AD's SDP: staged surgery path, representative vectors, and the image score, against the page's formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import whole
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional

from zsadbench import encoders, methods
from zsadbench.components import prompts
from zsadbench.components.similarity import unit
from zsadbench.datasets import Category
from zsadbench.encoders import open_clip, tiny
from zsadbench.encoders.features import FeatureRequest
from zsadbench.errors import OptionError, UsageError, WeightsError
from zsadbench.running.loading import from_tensor
from zsadbench.support import plugins
from zsadbench.testing import check_method, toy_images

clip_ad = plugins.load("zsadbench.methods", "clip_ad")
pytestmark = pytest.mark.filterwarnings("ignore:dbscan")  # the tiny encoder puts sentences into one cluster
CATEGORY = Category("metal_nut", "metal nut", "toy")


@pytest.fixture(scope="module")
def encoder() -> encoders.base.Encoder:
    return encoders.load("tiny")


@pytest.fixture(scope="module")
def text(encoder: encoders.base.Encoder) -> Tensor:
    return methods.create("clip_ad", encoder=encoder).text(CATEGORY)


def make(encoder: encoders.base.Encoder, text: Tensor, **changes: object):
    """Make the method with given text features, which spares the sentences."""
    return clip_ad.ClipAd(clip_ad.ClipAdConfig(**changes), encoder, text=lambda category: text)


@pytest.mark.parametrize(
    "changes",
    [
        {"image_score": "sum"},
        {"official_aliasing": False, "used_stages": (3, 4)},
        {"stages": 2, "rvs": "pca"},
        {"stages": 12, "rvs": "kde", "rvs_half": True},
    ],
)
def test_options_keep_the_contract(changes: dict) -> None:
    check_method("clip_ad", **changes)


def stage_maps(encoder: encoders.base.Encoder, images: Tensor, text: Tensor, stages: int, aliasing: bool) -> Tensor:
    """Run both paths block by block as the page says, attention written out: maps [stages, B, L]."""
    per_stage = encoder.depth // stages
    x = encoder.tower.norm_pre(encoder.embed(images))
    ends: list[tuple[Tensor, Tensor]] = []  # surgery path and class token of each stage
    for index, block in enumerate(encoder.blocks):
        if index % per_stage == 0:
            path = torch.zeros_like(x)
        q, k, v = block.qkv(block.norm1(x))
        path = path + block.out(torch.softmax(v @ v.transpose(-2, -1) * block.scale, dim=-1) @ v)
        x = x + block.out(torch.softmax(q @ k.transpose(-2, -1) * block.scale, dim=-1) @ v)
        if aliasing and index and index % per_stage == 0:  # the stage that just ended sees this block's attention
            ends[-1] = (ends[-1][0], x[:, :1])
        x = x + block.mlp(x)
        if (index + 1) % per_stage == 0:
            ends.append((path, x[:, :1]))
    maps = []
    for path, class_token in ends:
        normal, abnormal = (unit(encoder.project(torch.cat([class_token, path[:, 1:]], dim=1))) @ text.T).unbind(-1)
        p = torch.sigmoid(abnormal[:, :1] - normal[:, :1])
        maps.append((p * abnormal - (1 - p) * normal)[:, 1:])
    return torch.stack(maps)


@pytest.mark.parametrize("aliasing", [True, False])
@pytest.mark.parametrize("stages", [1, 3, 4])
def test_maps_equal_the_formulas_of_the_page(
    encoder: encoders.base.Encoder, text: Tensor, stages: int, aliasing: bool
) -> None:
    images = toy_images(2, encoder.size)
    expected = stage_maps(encoder, images, text, stages, aliasing)
    batch = from_tensor(images, CATEGORY)
    for used in (None, (1,), (1, stages) if stages > 1 else (1,)):
        method = make(encoder, text, stages=stages, used_stages=used, official_aliasing=aliasing)
        chosen = expected if used is None else expected[[stage - 1 for stage in used]]
        torch.testing.assert_close(method.predict(batch).maps.flatten(1), chosen.sum(0), rtol=1e-4, atol=1e-6)


def test_aliasing_changes_the_class_tokens_of_all_stages_but_the_last(
    encoder: encoders.base.Encoder, text: Tensor
) -> None:
    batch = from_tensor(toy_images(1, encoder.size), CATEGORY)
    for stage, same in ((1, False), (2, False), (3, False), (4, True)):
        maps = [
            make(encoder, text, used_stages=(stage,), official_aliasing=aliasing).predict(batch).maps
            for aliasing in (True, False)
        ]
        assert torch.equal(*maps) == same


def test_last_stage_alone_equals_clip_surgery_that_starts_from_nothing(
    encoder: encoders.base.Encoder, text: Tensor
) -> None:
    batch = from_tensor(toy_images(2, encoder.size), CATEGORY)
    surgery = methods.create("clip_surgery", encoder=encoder, blocks=3, start="attention", temperature=1.0)
    staged = methods.create("clip_ad", encoder=encoder, used_stages=(4,))
    for one, other in zip(surgery.predict(batch), staged.predict(batch), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_image_score_adds_class_token_and_smoothed_maximum_scaled_over_the_category(
    encoder: encoders.base.Encoder, text: Tensor
) -> None:
    batch = from_tensor(toy_images(4, encoder.size), CATEGORY)
    method = make(encoder, text, sigma=2.0)
    scores, maps = whole.predict(method, batch)
    embeddings = unit(encoder.encode(batch.images, FeatureRequest(cls=True)).embedding)
    p0 = (100 * embeddings @ text.T).softmax(dim=-1)[:, 1].numpy()
    full = functional.interpolate(maps[:, None], encoder.size, mode="bilinear", align_corners=False)[:, 0].numpy()
    p1 = np.array([gaussian_filter(image, 2.0).max() for image in full])
    expected = sum((values - values.min()) / (values.max() - values.min()) for values in (p0, p1))
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-4)
    summed, alone = (make(encoder, text, sigma=2.0, image_score=rule) for rule in ("sum", "class_token"))
    np.testing.assert_allclose(whole.predict(summed, batch).scores, p0 + p1, 1e-4)
    np.testing.assert_allclose(whole.predict(alone, batch).scores, p0, 1e-4)


def test_only_scaled_image_scores_depend_on_the_category_and_maps_never_do(
    encoder: encoders.base.Encoder, text: Tensor
) -> None:
    rules = ("minmax_sum", "sum", "class_token")
    assert [make(encoder, text, image_score=rule).image_scope for rule in rules] == ["category", "image", "image"]
    assert {make(encoder, text, image_score=rule).scope for rule in rules} == {"image"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, FeatureRequest(vv=range(1, 13), attended={4, 7, 10}, cls=True)),
        ({"official_aliasing": False}, FeatureRequest(vv=range(1, 13), tokens={3, 6, 9}, cls=True)),
        ({"used_stages": (2, 3)}, FeatureRequest(vv=range(4, 10), attended={7, 10}, cls=True)),
    ],
)
def test_request_names_what_the_stages_need_and_no_more(
    encoder: encoders.base.Encoder, text: Tensor, changes: dict, expected: FeatureRequest
) -> None:
    assert make(encoder, text, **changes).request == expected


@pytest.mark.parametrize(
    ("rule", "parameters"),
    [
        ("mean", {}),
        ("pca", {}),
        ("kde", {"bandwidth": 0.2}),
        ("mean_shift", {"bandwidth": 0.7}),
        ("dbscan", {"eps": 0.4, "min_samples": 3}),
    ],
)
@pytest.mark.filterwarnings("ignore:mean_shift")
def test_text_features_use_the_rule_with_its_options(
    encoder: encoders.base.Encoder, rule: str, parameters: dict
) -> None:
    changes = {f"{rule}_{name}": value for name, value in parameters.items()}
    method = methods.create("clip_ad", encoder=encoder, rvs=rule, rvs_half=True, **changes)
    expected = prompts.text_features(encoder.text, prompts.get("clip_ad"), "metal_nut", rule, half=True, **parameters)
    assert torch.equal(method.text(CATEGORY), expected)


def test_presets_for_visa_and_medical_images_differ_in_text_alone() -> None:
    presets = clip_ad.ClipAd.presets
    assert clip_ad.rvs_parameters(presets["sdp"]) == {"half": False, "eps": 0.5, "min_samples": 15}
    assert clip_ad.rvs_parameters(presets["sdp_rvs_visa"]) == {"half": False, "eps": 1.5, "min_samples": 25}
    assert {config.noun for name, config in presets.items() if config.prompts != "clip_ad"} == {"readable"}


def test_parameters_for_visa_give_the_mean_and_say_so(encoder: encoders.base.Encoder) -> None:
    with pytest.warns(UserWarning, match="plain mean"):
        visa = methods.create("clip_ad.sdp_rvs_visa", encoder=encoder).text(CATEGORY)
    torch.testing.assert_close(visa, methods.create("clip_ad", encoder=encoder, rvs="mean").text(CATEGORY))


def test_ten_crops_are_corners_and_centre_and_their_mirror_images(encoder: encoders.base.Encoder, text: Tensor) -> None:
    images = toy_images(2, encoder.size)  # 64 pixels are enlarged to 72
    large = functional.interpolate(images, size=72, mode="bicubic", antialias=True)
    scores = []
    for row, column in ((0, 0), (0, 8), (8, 0), (8, 8), (4, 4)):
        crop = large[:, :, row : row + 64, column : column + 64]
        for view in (crop, crop.flip(-1)):
            embedding = unit(encoder.encode(view, FeatureRequest(cls=True)).embedding)
            scores.append((100 * embedding @ text.T).softmax(dim=-1)[:, 1])
    crops = torch.stack(scores).mean(dim=0)
    batch = from_tensor(images, CATEGORY)
    plain = whole.predict(make(encoder, text, image_score="class_token"), batch).scores
    combined = whole.predict(make(encoder, text, image_score="class_token", multi_crop=True), batch).scores
    torch.testing.assert_close(combined, (plain + crops) / 2, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("used", [(0,), (5,), (2, 2)])
def test_stages_that_do_not_exist_are_refused(
    encoder: encoders.base.Encoder, text: Tensor, used: tuple[int, ...]
) -> None:
    with pytest.raises(OptionError, match="expected different numbers of 1 to 4"):
        make(encoder, text, used_stages=used)


def test_stages_that_do_not_divide_the_depth_are_refused(encoder: encoders.base.Encoder, text: Tensor) -> None:
    with pytest.raises(UsageError, match="12 blocks, which do not divide into 5 equal stages"):
        make(encoder, text, stages=5)


def test_encoder_without_text_tower_is_refused() -> None:
    visual = {name: tensor for name, tensor in tiny.tensors().items() if name.startswith("visual.")}
    with pytest.raises(WeightsError, match="no text tower"):
        methods.create("clip_ad", encoder=open_clip.from_config(tiny.CONFIG, visual, spec="blind"))
