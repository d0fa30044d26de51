"""FiSeCLIP: borrowed attention, filtered matching in rounds, and the identity with MuSc, against slow loops."""

from __future__ import annotations

import itertools
from typing import Any

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
from zsadbench.encoders import open_clip, tiny
from zsadbench.encoders.base import Encoder
from zsadbench.encoders.features import FeatureRequest
from zsadbench.errors import OptionError, UsageError, WeightsError
from zsadbench.methods import Method
from zsadbench.running.loading import ChunkStore, ImageBatch, batch_of, from_tensor
from zsadbench.support import plugins
from zsadbench.testing import check_method, toy_images

fiseclip = plugins.load("zsadbench.methods", "fiseclip")
CATEGORY = Category("metal_nut", "metal nut", "toy")
ENCODER = encoders.load("tiny")
TEXT = unit(torch.randn(2, ENCODER.joint_width, generator=torch.Generator().manual_seed(3)))
IMAGES = toy_images(4, ENCODER.size)
MU = 0.5  # near the distances of the tiny encoder, so that rounds change masks


def create(preset: str = "full", **changes: Any) -> Method:
    """Make the method on the tiny encoder with random text features, which need no text tower."""
    method, name, config = methods.configure(f"fiseclip.{preset}", changes={"temperature": 10.0, "mu": MU} | changes)
    return methods.build(lambda config, encoder: method(config, encoder, text=lambda _: TEXT), name, config, ENCODER)


def batch(count: int = 2) -> ImageBatch:
    return from_tensor(IMAGES[:count], CATEGORY)


@pytest.mark.parametrize("encoder", ["tiny", "demo"])
@pytest.mark.parametrize("preset", ["full", "se", "fi", "fi_unfiltered"])
def test_fiseclip_keeps_the_contract(preset: str, encoder: str) -> None:
    check_method(f"fiseclip.{preset}", encoder)


def test_fiseclip_keeps_the_contract_with_larger_batches_and_other_switches() -> None:
    check_method("fiseclip", batch_images=3, references="min", filtering="layers", vote="or", fusion="half")
    check_method("fiseclip.se", attention="vv", image_score="map")


def test_scope_is_the_batch_unless_the_text_branch_is_alone() -> None:
    assert (create().scope, create().batch_images) == ("batch", 2)
    assert create("fi", batch_images=5).batch_images == 5
    assert (create("se").scope, create("se").batch_images) == ("image", None)


def test_unfiltered_matching_of_a_pair_is_musc_on_pairs() -> None:
    pair = methods.create("musc.pair", encoder=ENCODER).predict(batch())
    unfiltered = create("fi_unfiltered").predict(batch())
    torch.testing.assert_close(unfiltered.maps, pair.maps, rtol=0, atol=1e-6)
    torch.testing.assert_close(unfiltered.scores, pair.scores, rtol=0, atol=1e-6)


def test_unfiltered_matching_of_a_group_is_musc_with_all_other_images() -> None:
    for references, nearest in (("mean", 3), ("min", 1)):
        group = methods.create("musc.pair", encoder=ENCODER, group=4, topmin_max=nearest, neighbourhoods=(3,))
        unfiltered = create("fi_unfiltered", batch_images=4, references=references, neighbourhoods=(3,))
        torch.testing.assert_close(unfiltered.predict(batch(4)).maps, group.predict(batch(4)).maps, rtol=0, atol=1e-6)


def slow_attention_branch(proxy: int, heads: str) -> Tensor:
    """Attention of block `proxy` times values of the last block, from the weights: [4, L, D]."""
    depth, weights = ENCODER.depth, tiny.tensors()
    features = ENCODER.encode(IMAGES, FeatureRequest(attention={proxy}, tokens={depth - 1}))
    stream = torch.cat([features.prefix(depth - 1), features.tokens(depth - 1)], dim=1)
    name = f"visual.transformer.resblocks.{depth - 1}"
    norm = torch.nn.functional.layer_norm(
        stream, stream.shape[-1:], weights[f"{name}.ln_1.weight"], weights[f"{name}.ln_1.bias"]
    )
    values = norm @ weights[f"{name}.attn.in_proj_weight"][-ENCODER.width :].T
    values = values + weights[f"{name}.attn.in_proj_bias"][-ENCODER.width :]
    size = ENCODER.width // ENCODER.heads
    parts = []
    for head in range(ENCODER.heads):
        attention = features.attention(proxy)
        attention = attention[:, head] if heads == "per_head" else attention.mean(dim=1)
        parts.append(attention @ values[..., head * size : (head + 1) * size])
    mixed = torch.cat(parts, dim=2) @ weights[f"{name}.attn.out_proj.weight"].T
    return (mixed + weights[f"{name}.attn.out_proj.bias"])[:, 1:]


@pytest.mark.parametrize("heads", ["mean", "per_head"])
@pytest.mark.parametrize("proxy", [1, 6, 12])
def test_patches_take_the_attention_of_the_proxy_block_and_the_values_of_the_last(proxy: int, heads: str) -> None:
    method = create("se", proxy_depth=proxy / 12, proxy_heads=heads)
    assert method.proxy_layer == proxy
    features = ENCODER.encode(IMAGES, method.request)
    expected = slow_attention_branch(proxy, heads)
    torch.testing.assert_close(method.borrowed_attention(features), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(method.local_features(features), unit(ENCODER.project(expected)), rtol=1e-4, atol=1e-5)


def test_the_last_block_as_its_own_proxy_is_its_plain_attention() -> None:
    method = create("se", proxy_depth=1.0, proxy_heads="per_head")
    features = ENCODER.encode(IMAGES, method.request | FeatureRequest(attended={12}))
    plain = features.attended(12)[:, 1:] - features.tokens(11)
    torch.testing.assert_close(method.borrowed_attention(features), plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("attention", ["vv", "qq", "kk"])
def test_other_attentions_are_those_of_the_last_block(attention: str) -> None:
    method = create("se", attention=attention)
    features = ENCODER.encode(IMAGES, FeatureRequest(vv={12}, qq={12}, kk={12}))
    expected = unit(ENCODER.project(getattr(features, attention)(12)[:, 1:]))
    assert torch.equal(method.local_features(features), expected)


def test_proxy_depth_is_a_share_of_the_depth() -> None:
    layers = [create("se", proxy_depth=layer / 24).proxy_layer for layer in range(3, 25, 3)]
    assert layers == [2, 3, 5, 6, 8, 9, 11, 12]  # of 12 blocks; halves round up
    assert create("se", proxy_depth=0.01).proxy_layer == 1


def test_text_branch_alone_is_the_probability_of_the_patches_plus_that_of_the_class_token() -> None:
    method = create("se")
    scores, maps = method.predict(batch())
    features = ENCODER.encode(IMAGES[:2], method.request | FeatureRequest(cls=True))
    patches = (method.local_features(features) @ TEXT.T * 10).softmax(dim=2)[..., 1]
    image = (unit(features.embedding) @ TEXT.T * 10).softmax(dim=1)[:, 1]
    torch.testing.assert_close(maps.flatten(1), patches)
    peak = resize_maps(maps, ENCODER.size, align_corners=True).amax(dim=(1, 2))
    torch.testing.assert_close(scores, image + peak)


def slow_distances(tokens: Tensor, side: int, masks: Tensor) -> Tensor:
    """Mean over the other images of the distance to the nearest unmasked patch: tokens [B, L, D] -> [B, L]."""
    vectors = mutual.aggregate(mutual.normalise(tokens), side)
    count = len(vectors)
    total = torch.zeros(vectors.shape[:2])
    for u, v in itertools.permutations(range(count), 2):
        allowed = vectors[v] if masks[v].all() else vectors[v][~masks[v]]
        total[u] += torch.cdist(vectors[u], allowed, compute_mode="donot_use_mm_for_euclid_dist").amin(dim=1)
    return total / (count - 1)


def slow_filtering(method: Method, images: ImageBatch, groups: list[list[tuple[int, int]]], semantic: Tensor) -> Tensor:
    """Match each group of (layer, side) with the current masks, then keep what the mean distance confirms: [B, L]."""
    features = images.features(ENCODER, method.request)
    masks = semantic / (1 - semantic) > method.config.lambda_
    found = []
    for group in groups:
        scores = [slow_distances(features.tokens(layer), side, masks) for layer, side in group]
        found += scores
        masks = masks & (sum(scores) / len(scores) > method.config.mu)
    return sum(found) / len(found)


LAYERS, SIDES = (3, 6, 9, 12), (1, 3, 5)
ORDERS = {
    "text": [list(itertools.product(LAYERS, SIDES))],
    "neighbourhoods": [[(layer, side) for layer in LAYERS] for side in (1, 3, 5)],
    "neighbourhoods_reversed": [[(layer, side) for layer in LAYERS] for side in (5, 3, 1)],
    "layers": [[(layer, side) for side in SIDES] for layer in (3, 6, 9, 12)],
    "steps": [[(layer, side)] for side in SIDES for layer in LAYERS],
}


@pytest.mark.parametrize("filtering", ORDERS)
def test_filtering_equals_a_loop_over_rounds_and_image_pairs(filtering: str) -> None:
    method = create("fi", filtering=filtering, batch_images=3, lambda_=0.9)
    images = batch(3)
    semantic = method.semantic(images.features(ENCODER, method.request), TEXT)
    expected = slow_filtering(method, images, ORDERS[filtering], semantic)
    assert torch.allclose(method.predict(images).maps.flatten(1), expected, rtol=0, atol=1e-5)


def test_every_order_of_filtering_gives_another_map() -> None:
    maps = [create("fi", filtering=filtering, lambda_=0.9).predict(batch()).maps for filtering in ORDERS]
    for one, other in itertools.combinations(maps, 2):
        assert not torch.allclose(one, other, rtol=0, atol=1e-4)


@pytest.mark.parametrize("lambda_", [0.0, 1e6])
def test_masking_all_patches_or_none_is_matching_without_filtering(lambda_: float) -> None:
    filtered = create("fi", filtering="text", lambda_=lambda_).predict(batch())
    assert torch.equal(filtered.maps, create("fi_unfiltered").predict(batch()).maps)


def matched(**changes: Any) -> Any:
    """The Matching of a pair under changed options."""
    method = create("fi", **changes)
    features = batch().features(ENCODER, method.request)
    return method.match(features, batch(), method.semantic(features, TEXT))


@settings(max_examples=15, deadline=None)
@given(st.floats(0.5, 1.5), st.floats(0.2, 1.0), st.sampled_from(["neighbourhoods", "layers", "steps"]))
def test_masks_only_shrink_when_both_must_agree_and_only_grow_when_one_suffices(
    lambda_: float, mu: float, filtering: str
) -> None:
    both = matched(lambda_=lambda_, mu=mu, filtering=filtering, vote="and").masks
    either = matched(lambda_=lambda_, mu=mu, filtering=filtering, vote="or").masks
    assert torch.equal(both[0], either[0])
    assert not (both[1:] & ~both[:-1]).any()
    assert not (either[:-1] & ~either[1:]).any()


def test_distances_above_mu_keep_a_patch_masked() -> None:
    found = matched(lambda_=0.9)
    for masks, scores, after in zip(found.masks, found.scores, found.masks[1:], strict=False):
        assert torch.equal(after, masks & (scores > MU))
    assert not torch.equal(found.masks[0], found.masks[-1])


def test_maps_are_fused_as_the_option_says() -> None:
    method = create()
    features = batch().features(ENCODER, method.request)
    semantic = method.semantic(features, TEXT)
    scores = method.match(features, batch(), semantic).scores
    expected = {
        "mean": (semantic + scores[0] + scores[1] + scores[2]) / 4,
        "half": (semantic + scores.mean(dim=0)) / 2,
        "fi": scores.mean(dim=0),
        "se": semantic,
    }
    for fusion, patches in expected.items():
        torch.testing.assert_close(create(fusion=fusion).predict(batch()).maps.flatten(1), patches)


def test_image_score_adds_the_class_token_unless_only_the_map_is_asked_for() -> None:
    both, alone = (create(image_score=score).predict(batch()) for score in ("class_token_and_map", "map"))
    assert torch.equal(both.maps, alone.maps)
    embedding = ENCODER.encode(IMAGES[:2], FeatureRequest(cls=True)).embedding
    image = (unit(embedding) @ TEXT.T * 10).softmax(dim=1)[:, 1]
    torch.testing.assert_close(both.scores - alone.scores, image)


def wrapped(count: int, stop: int) -> ImageBatch:
    """The batch of images 0..stop of a category of `count` images, filled up from its start."""
    images = dict(zip(batch(count).paths, IMAGES, strict=False))
    return batch_of(ChunkStore(tuple(images), 4, images.__getitem__), CATEGORY, 0, stop)


def test_a_copy_of_an_image_that_fills_the_batch_is_no_reference_of_it() -> None:
    pair = create().predict(batch())
    filled = create(batch_images=3).predict(wrapped(2, 3))
    torch.testing.assert_close(filled.maps[:2], pair.maps, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(filled.maps[2], pair.maps[0], rtol=1e-4, atol=1e-5)


def test_a_category_of_one_image_cannot_be_matched_but_the_text_branch_scores_it() -> None:
    with pytest.raises(UsageError, match=r"fiseclip compares the images .* got 1 different image"):
        create().predict(wrapped(1, 2))
    assert create("se").predict(wrapped(1, 1)).scores.shape == (1,)


def test_only_unfiltered_matching_does_without_a_text_tower() -> None:
    visual = {name: tensor for name, tensor in tiny.tensors().items() if name.startswith("visual.")}
    blind: Encoder = open_clip.from_config(tiny.CONFIG, visual, spec="blind")
    unfiltered = methods.create("fiseclip.fi_unfiltered", encoder=blind)
    assert torch.equal(unfiltered.predict(batch()).maps, create("fi_unfiltered").predict(batch()).maps)
    for preset in ("full", "se", "fi"):
        with pytest.raises(WeightsError, match="no text tower"):
            methods.create(f"fiseclip.{preset}", encoder=blind)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"neighbourhoods": (1, 2)}, "expected odd sides"),
        ({"neighbourhoods": ()}, "expected odd sides"),
        ({"batch_images": 1}, "expected at least 2 images"),
        ({"proxy_depth": 0.0}, "expected a share of the depth"),
        ({"proxy_depth": 12.0}, "expected a share of the depth"),
    ],
)
def test_options_out_of_range_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        create(**changes)


def test_defaults_are_those_argued_for_the_paper() -> None:
    config = fiseclip.FiseclipConfig()
    assert (config.lambda_, config.mu, config.batch_images, config.neighbourhoods) == (1.1, 0.57, 2, (1, 3, 5))
    assert (config.vote, config.filtering, config.fusion) == ("and", "neighbourhoods", "mean")
