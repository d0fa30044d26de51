"""Building encoders from a config and tensors: shapes, towers that are not there, and what is refused."""

from __future__ import annotations

import open_clip
import pytest
import torch
from toy_clip import make

from zsadbench import encoders
from zsadbench.encoders import open_clip as clip_layout
from zsadbench.encoders.features import FeatureRequest
from zsadbench.errors import UsageError, WeightsError


def test_an_encoder_tells_its_shape(pair):
    encoder = pair[1]
    assert (encoder.size, encoder.patch, encoder.grid, encoder.depth, encoder.width) == (32, 8, 4, 3, 48)
    assert (encoder.heads, encoder.prefixes, encoder.joint_width, encoder.device) == (3, 1, 24, "cpu")
    assert encoder.logit_scale == pytest.approx(1 / 0.07)
    assert encoder.stages(3) == (1, 2, 3) and encoder.stages(1) == (3,)
    with pytest.raises(UsageError, match="3 blocks"):
        encoder.stages(2)


def test_without_text_keys_there_is_no_text_tower():
    model, config = make()
    tensors = {name: tensor for name, tensor in model.state_dict().items() if name.startswith("visual.")}
    encoder = clip_layout.from_config(config, tensors, spec="test")
    assert encoder.text is None and encoder.logit_scale is None and encoder.joint_width == 24


@torch.no_grad()
def test_the_text_tower_alone_encodes_as_the_whole_model_does():
    model, config = make()
    tensors = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if not name.startswith("visual.") and name != "logit_scale"
    }
    text = clip_layout.text_from_config({**config, "vision_cfg": None}, tensors)
    ids = open_clip.tokenize(["a coin"])
    torch.testing.assert_close(text.encode(["a coin"]), model.encode_text(ids))


def test_the_callers_tensors_are_left_alone(images):
    model, config = make()
    tensors = dict(model.state_dict())
    copies = {name: tensor.clone() for name, tensor in tensors.items()}
    encoder = clip_layout.from_config(config, tensors, spec="test", size=40)
    encoder.encode(torch.randn(1, 3, 40, 40), FeatureRequest(cls=True))
    assert all(torch.equal(tensors[name], copies[name]) for name in copies)


def test_half_precision_files_are_computed_in_float32():
    model, config = make()
    tensors = {name: tensor.half() for name, tensor in model.state_dict().items()}
    encoder = clip_layout.from_config(config, tensors, spec="test")
    assert encoder.positions.dtype == torch.float32
    assert encoder.encode(torch.randn(1, 3, 32, 32), FeatureRequest(cls=True)).embedding.dtype == torch.float32


@pytest.mark.parametrize(("size", "hint"), [(33, "32 or 40"), (5, "Set the size to 8")])
def test_a_size_that_patches_do_not_tile_names_the_nearest_sizes(size, hint):
    model, config = make()
    with pytest.raises(UsageError, match=hint):
        clip_layout.from_config(config, model.state_dict(), spec="test", size=size)


@pytest.mark.parametrize("option", ["activation", "pos_embed", "precision"])
def test_an_unknown_option_value_lists_the_known_ones(option):
    with pytest.raises(UsageError, match="nonsense"):
        encoders.load("tiny", **{option: "nonsense"})


def test_images_of_another_size_are_refused(pair):
    with pytest.raises(UsageError, match=r"\[B, 3, 32, 32\]"):
        pair[1].encode(torch.randn(1, 3, 40, 40), FeatureRequest(cls=True))


@pytest.mark.parametrize(
    "request_", [{"tokens": {4}}, {"vv": {0}}, {"attention": {9}}, {"tokens": {-1}}, {"vv_path": {(2, 4)}}]
)
def test_a_layer_that_is_not_there_is_refused(request_, pair, images):
    with pytest.raises(UsageError, match="blocks 1 to 3"):
        pair[1].encode(images, FeatureRequest(**request_))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"vision_cfg": {"layers": [1, 1, 1, 1], "width": 8}}, "ResNet"),
        ({"vision_cfg": {"timm_model_name": "vit_tiny_patch16_224"}}, "timm:NAME"),
        ({"vision_cfg": {"attentional_pool": True}}, "attention pooling"),
        ({"vision_cfg": {"pool_type": "avg"}}, "average pooling"),
        ({"vision_cfg": {"qk_norm": True}}, "custom attention"),
        ({"custom_text": True}, "text tower"),
    ],
)
def test_models_of_another_kind_are_refused_by_name_of_the_difference(change, reason):
    with pytest.raises(UsageError, match=reason):
        clip_layout.from_config({"embed_dim": 8, "vision_cfg": {}, "text_cfg": {}} | change, {}, spec="test")


def test_weights_of_another_shape_name_both_shapes():
    _, config = make()
    other, _ = make(width=64)
    with pytest.raises(WeightsError, match=r"class_embedding \[64\] instead of \[48\]"):
        clip_layout.from_config(config, other.state_dict(), spec="test")


def test_missing_and_unknown_weights_are_named():
    model, config = make()
    tensors = dict(model.state_dict())
    del tensors["visual.proj"]
    tensors["visual.extra"] = torch.zeros(1)
    with pytest.raises(WeightsError, match=r"lacks visual.proj; it has the unknown visual.extra"):
        clip_layout.from_config(config, tensors, spec="test")
