"""CLIP-AD's SDP+: maps of the trained layers, their training, and presets that need no weights beside those that do."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from test_clip_ad import CATEGORY, stage_maps
from torch import Tensor
from torch.nn import functional

from zsadbench import encoders, methods
from zsadbench.datasets import Category
from zsadbench.encoders.features import FeatureRequest
from zsadbench.encoders.weights import read_checkpoint
from zsadbench.errors import NeedsCheckpoint, UsageError, WeightsError
from zsadbench.methods import TrainableMethod
from zsadbench.running.checkpoint_choice import Chooser
from zsadbench.running.loading import from_tensor
from zsadbench.running.request import Request
from zsadbench.support import plugins
from zsadbench.testing import check_method, toy_images
from zsadbench.training import checkpoints
from zsadbench.training import request as train_request
from zsadbench.training.request import TrainRequest

clip_ad = plugins.load("zsadbench.methods", "clip_ad")
pytestmark = pytest.mark.filterwarnings("ignore:dbscan")  # the tiny encoder puts sentences into one cluster
PILL = Category("pill", "pill", "toy")


@pytest.fixture(scope="module")
def encoder() -> encoders.base.Encoder:
    return encoders.load("tiny")


@pytest.fixture(scope="module")
def text(encoder: encoders.base.Encoder) -> dict[Category, Tensor]:
    rows = torch.randn(2, 2, encoder.joint_width, generator=torch.Generator().manual_seed(0))
    return dict(zip((CATEGORY, PILL), functional.normalize(rows, dim=-1), strict=True))


def make(encoder: encoders.base.Encoder, text: dict[Category, Tensor], **changes: object) -> TrainableMethod:
    """Make the method with given text features and drawn layers."""
    method = clip_ad.ClipAd(clip_ad.ClipAdPlusConfig(**changes), encoder, text=text.__getitem__)
    method.initialise(seed=0)
    return method


def own_path(encoder: encoders.base.Encoder, images: Tensor, aliasing: bool) -> list[Tensor]:
    """Return the patch tokens that the layers of four stages take, block by block as the page says (§Image side)."""
    x = encoder.tower.norm_pre(encoder.embed(images))
    kept = []
    for index, block in enumerate(encoder.blocks):
        x = x + block.attend(*block.qkv(block.norm1(x)))
        if aliasing and index in (3, 6, 9):
            kept.append(x[:, 1:])
        x = x + block.mlp(x)
        if index == 11 or (not aliasing and index in (2, 5, 8)):
            kept.append(x[:, 1:])
    return kept


@pytest.mark.parametrize("aliasing", [True, False])
def test_maps_add_the_abnormal_probabilities_of_the_layers_to_the_surgery_maps(
    encoder: encoders.base.Encoder, text: dict[Category, Tensor], aliasing: bool
) -> None:
    images = toy_images(2, encoder.size)
    expected, grids = [], stage_maps(encoder, images, text[CATEGORY], 4, aliasing).unflatten(2, (8, 8))
    method = make(encoder, text, official_aliasing=aliasing)
    for layer, tokens, grid in zip(method.trained.fc, own_path(encoder, images, aliasing), grids, strict=True):
        mapped = tokens @ layer.weight.T + layer.bias
        logits = 100 * (mapped / mapped.norm(dim=2, keepdim=True)) @ text[CATEGORY].T
        logits = logits.transpose(1, 2).reshape(2, 2, 8, 8)
        probability = functional.interpolate(logits, size=64, mode="bilinear", align_corners=True).softmax(dim=1)[:, 1]
        expected.append(
            probability + functional.interpolate(grid[:, None], 64, mode="bilinear", align_corners=False)[:, 0]
        )
    batch = from_tensor(images, CATEGORY)
    torch.testing.assert_close(method.predict(batch).maps, sum(expected), rtol=1e-3, atol=1e-4)
    for number, alone in enumerate(expected, start=1):
        one = make(encoder, text, official_aliasing=aliasing, used_stages=(number,))
        torch.testing.assert_close(one.predict(batch).maps, alone, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "prediction", "learning"),
    [
        ({}, {"attended": {4, 7, 10}, "tokens": {12}}, {"attended": {4, 7, 10}, "tokens": {12}}),
        ({"official_aliasing": False}, {"tokens": {3, 6, 9, 12}}, {"tokens": {3, 6, 9, 12}}),
        ({"used_stages": (2,)}, {"attended": {7}}, {"attended": {4, 7, 10}, "tokens": {12}}),
    ],
)
def test_training_reads_every_stage_and_prediction_those_that_are_used(
    encoder: encoders.base.Encoder, text: dict[Category, Tensor], changes: dict, prediction: dict, learning: dict
) -> None:
    method = make(encoder, text, **changes)
    assert method.training_request == FeatureRequest(**learning)
    assert replace(method.request, vv=frozenset(), cls=False) == FeatureRequest(**prediction)


def test_sdp_needs_no_weights_and_sdp_plus_asks_for_them(
    encoder: encoders.base.Encoder, text: dict[Category, Tensor]
) -> None:
    batch = from_tensor(toy_images(1, encoder.size), CATEGORY)
    sdp = clip_ad.ClipAd(clip_ad.ClipAdConfig(), encoder, text=text.__getitem__)
    assert sdp.predict(batch).maps.shape == (1, 8, 8)
    assert sdp.trained_on == frozenset(), "known to be trained on nothing"
    with pytest.raises(NeedsCheckpoint, match=r"clip_ad.sdp_plus_mvtec needs trained .* --dataset mvtec"):
        methods.create("clip_ad.sdp_plus_mvtec", encoder=encoder, rvs="mean").predict(batch)


def test_sdp_needs_no_checkpoint_and_sdp_plus_lacks_one() -> None:
    chooser = Chooser(Request((), ("visa",), Path("run")))
    for name, problem in (("clip_ad", type(None)), ("clip_ad.sdp_plus", NeedsCheckpoint)):
        method, full, config = methods.configure(name, "tiny")
        assert isinstance(chooser.choose(full, method, config, ("",)).problem, problem)


@pytest.mark.parametrize(
    ("method", "dataset", "full"),
    [
        ("clip_ad", "visa", "clip_ad.sdp_plus_visa"),
        ("clip_ad", "demo.train", "clip_ad.sdp_plus_demo"),
        ("clip_ad.sdp_plus", "mvtec", "clip_ad.sdp_plus_mvtec"),
        ("clip_ad", "btad", "clip_ad.sdp_plus_visa"),  # the first trained preset's recipe on other data
    ],
)
def test_training_picks_the_trained_preset_of_the_dataset(method: str, dataset: str, full: str) -> None:
    _, name, config = train_request.configure(TrainRequest(method, dataset, Path("out"), encoder="tiny"), dataset)
    assert (name, config.trained_on) == (full, dataset)


def test_training_sdp_is_refused() -> None:
    with pytest.raises(UsageError, match=r"clip_ad\.sdp means trained on nothing"):
        train_request.configure(TrainRequest("clip_ad.sdp", "visa", Path("out")), "visa")


def test_official_file_loads_under_its_own_key_names(
    encoder: encoders.base.Encoder, text: dict[Category, Tensor], tmp_path: Path
) -> None:
    source = make(encoder, text)
    torch.save({"linear_layers": source.trained.state_dict()}, tmp_path / "epoch_5.pth")
    method = methods.create("clip_ad.sdp_plus_mvtec", encoder=encoder)
    method.load_checkpoint(read_checkpoint(tmp_path / "epoch_5.pth"), "epoch_5.pth")
    assert method.trained_on == {"mvtec"}
    assert all(torch.equal(ours, source.trained.state_dict()[key]) for key, ours in method.trained.state_dict().items())
    with pytest.raises(WeightsError, match=r"epoch_5.pth.*fc.0.weight"):
        methods.create("clip_ad.sdp_plus", encoder=encoder, mapping_layers=3).load_checkpoint(
            read_checkpoint(tmp_path / "epoch_5.pth"), "epoch_5.pth"
        )


@pytest.mark.parametrize(("layers", "relu"), [(1, False), (3, False), (3, True), (5, True)])
def test_mappings_have_the_asked_layers_with_relu_between_them(
    encoder: encoders.base.Encoder, text: dict[Category, Tensor], layers: int, relu: bool
) -> None:
    method = make(encoder, text, mapping_layers=layers, mapping_relu=relu)
    first = method.trained.fc[0]
    sequence = [first] if layers == 1 else list(first)
    linear = [layer for layer in sequence if isinstance(layer, torch.nn.Linear)]
    assert [layer.in_features for layer in linear] == [encoder.width] + [encoder.joint_width] * (layers - 1)
    tokens = torch.randn(1, 5, encoder.width, generator=torch.Generator().manual_seed(1))
    expected = tokens
    for number, layer in enumerate(linear):
        expected = torch.relu(expected) if relu and number else expected
        expected = expected @ layer.weight.T + layer.bias
    torch.testing.assert_close(method.trained(tokens, 0), expected)


def test_layers_are_drawn_as_torch_draws_linear_layers(
    encoder: encoders.base.Encoder, text: dict[Category, Tensor]
) -> None:
    layer = make(encoder, text).trained.fc[2].requires_grad_(False)
    bound = encoder.width**-0.5
    assert 0.9 * bound < float(layer.weight.abs().max()) <= bound
    assert float(layer.bias.abs().max()) <= bound


def test_the_factor_changes_the_learning_rate_alone(
    encoder: encoders.base.Encoder, text: dict[Category, Tensor]
) -> None:
    recipe, slow = make(encoder, text).recipe, make(encoder, text, lr_factor=0.1).recipe
    assert (recipe.stages[0].lr, slow.stages[0].lr) == (1e-4, pytest.approx(1e-5))
    assert replace(slow.stages[0], lr=1e-4) == recipe.stages[0]
    assert (recipe.stages[0].epochs, recipe.batch_size, recipe.shuffle) == (5, 8, False)


@dataclass
class Steps:
    """What a loss needs of a training batch."""

    images: Tensor
    categories: tuple[Category, ...]

    def features(self, encoder: encoders.base.Encoder, request: FeatureRequest) -> object:
        with torch.no_grad():
            return encoder.encode(self.images, request)


def test_the_loss_sums_over_all_stages_with_each_images_own_text(
    encoder: encoders.base.Encoder, text: dict[Category, Tensor]
) -> None:
    method = make(encoder, text, used_stages=(4,))
    images, masks, labels = toy_images(2, 64), torch.zeros(2, 64, 64), torch.tensor([0, 1])
    masks[1, :8, :8] = 1
    mixed = method.loss(Steps(images, (CATEGORY, PILL)), labels, masks)
    alone = [
        method.loss(Steps(images[i : i + 1], (category,)), labels[i : i + 1], masks[i : i + 1])
        for i, category in enumerate((CATEGORY, PILL))
    ]
    for name in ("focal", "dice"):
        torch.testing.assert_close(mixed[name], (alone[0][name] + alone[1][name]) / 2, rtol=1e-4, atol=1e-5)
    sum(mixed.values()).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in method.trained.parameters()), "also of unused stages"


def test_training_uses_the_parameters_of_the_training_set_and_plain_prompts() -> None:
    config = clip_ad.ClipAd.presets["sdp_plus_visa_headct"]
    options = clip_ad._training_options(config)
    assert (options.prompts, options.noun) == ("clip_ad", "raw")
    assert clip_ad.rvs_parameters(options) == {"half": False, "eps": 1.5, "min_samples": 25}
    assert clip_ad.rvs_parameters(config) == {"half": False, "eps": 0.5, "min_samples": 15}


@pytest.mark.parametrize(
    ("name", "same"),
    [("sdp_plus_visa_headct", "sdp_plus_visa"), ("sdp_plus_mvtec_rvs_visa", "sdp_plus_mvtec")],
)
def test_presets_that_differ_in_the_target_alone_share_a_checkpoint(name: str, same: str) -> None:
    def kind(preset: str) -> dict:
        config = clip_ad.ClipAd.presets[preset]
        return checkpoints.subject("clip_ad", clip_ad.ClipAd, vars(config) | {"recipe": None}, [])

    assert kind(name) == kind(same)
    assert clip_ad.ClipAd.presets[name] != clip_ad.ClipAd.presets[same]


@pytest.mark.parametrize("changes", [{"image_score": "sum"}, {"mapping_layers": 3, "official_aliasing": False}])
def test_options_keep_the_contract(changes: dict) -> None:
    check_method("clip_ad.sdp_plus", **changes)
