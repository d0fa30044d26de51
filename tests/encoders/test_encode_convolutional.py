"""Residual networks as encoders: stages as layers, weight files of timm and torchvision, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from zsadbench import encoders, methods
from zsadbench.encoders import random
from zsadbench.encoders import timm as timm_encoders
from zsadbench.encoders.features import FeatureRequest
from zsadbench.errors import UsageError, WeightsError
from zsadbench.testing import toy_images

SPEC = "timm:resnet18.tv_in1k"


@pytest.fixture(scope="module")
def tensors() -> dict[str, torch.Tensor]:
    """Random weights as torchvision's first files have them: with the classifier, without counters."""
    found = random.draw(timm_encoders.shapes({"model": "resnet18"}, SPEC))
    return {name: tensor for name, tensor in found.items() if not name.endswith("num_batches_tracked")}


@pytest.fixture(scope="module")
def weights(tensors: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    path = tmp_path_factory.mktemp("weights") / "resnet18.safetensors"
    save_file(tensors, path)
    return {SPEC: path}


@pytest.fixture(scope="module")
def encoder(weights: dict[str, Path]) -> encoders.base.Encoder:
    return encoders.load(SPEC, size=64, weights=weights)


def test_tokens_of_a_layer_are_the_positions_of_a_stage_of_timms_own_model(
    encoder: encoders.base.Encoder, tensors: dict[str, torch.Tensor]
) -> None:
    assert "fc.weight" in tensors
    model = timm.create_model("resnet18", features_only=True, out_indices=(1, 2, 3, 4)).eval()
    own = {name: tensor for name, tensor in tensors.items() if not name.startswith("fc.")}
    assert not model.load_state_dict(own, strict=False).unexpected_keys
    images = toy_images(2, 64)
    with torch.no_grad():
        expected = model(images)
    features = encoder.encode(images, FeatureRequest(tokens={1, 2, 3, 4}))
    for layer, stage in enumerate(expected, start=1):
        grid, width = encoder.layer_shape(layer)
        assert stage.shape == (2, width, grid, grid)
        assert features.prefix(layer).shape == (2, 0, width)
        torch.testing.assert_close(features.tokens(layer), stage.flatten(2).transpose(1, 2))
    alone = encoder.encode(images, FeatureRequest(tokens={2}))
    assert torch.equal(alone.tokens(2), features.tokens(2)), "what else is asked for changes nothing"


def test_identity_and_preprocessing_are_those_of_the_weights(
    encoder: encoders.base.Encoder, weights: dict[str, Path]
) -> None:
    assert encoder.identity["sha256"] == encoders.identify(SPEC, weights)
    assert json.loads(encoder.key)["shapes"] == [[16, 64], [8, 128], [4, 256], [2, 512]]
    assert (encoder.preprocess.interpolation, encoder.preprocess.mean) == ("bilinear", (0.485, 0.456, 0.406))
    assert encoders.load(SPEC, weights=weights).size == 224


def test_reduced_precision_computes_near_the_full_one(encoder: encoders.base.Encoder, weights: dict[str, Path]) -> None:
    images, request = toy_images(1, 64), FeatureRequest(tokens={3})
    low = encoders.load(SPEC, size=64, weights=weights, precision="bf16").encode(images, request).tokens(3)
    full = encoder.encode(images, request).tokens(3)
    assert low.dtype == torch.float32
    assert 0 < float((low - full).norm() / full.norm()) < 0.05


@pytest.mark.parametrize("request_", [FeatureRequest(cls=True), FeatureRequest(vv={1}), FeatureRequest(tokens={5})])
def test_what_a_network_without_blocks_cannot_give_is_refused(
    encoder: encoders.base.Encoder, request_: FeatureRequest
) -> None:
    with pytest.raises(UsageError, match="gives the tokens of its stages 1 to 4 alone"):
        encoder.encode(toy_images(1, 64), request_)


def test_methods_for_transformers_are_refused_in_a_sentence(encoder: encoders.base.Encoder) -> None:
    with pytest.raises(WeightsError, match="no text tower"):
        methods.create("april_gan", encoder=encoder)
    with pytest.raises(
        UsageError, match=r"'timm:resnet18.tv_in1k' has no 'grid'; the method expects a vision transformer"
    ):
        _ = encoder.grid


@pytest.mark.parametrize(
    ("options", "message"),
    [({"size": 100}, "do not tile an image of 100"), ({"activation": "gelu"}, "leave the activation out")],
)
def test_wrong_options_are_refused(weights: dict[str, Path], options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        encoders.load(SPEC, weights=weights, **options)


def test_weights_of_another_network_are_refused(weights: dict[str, Path]) -> None:
    with pytest.raises(WeightsError, match=r"another architecture: the file lacks layer1\.0\.bn3"):
        encoders.load("timm:resnet50.tv_in1k", weights={"timm:resnet50.tv_in1k": weights[SPEC]})
