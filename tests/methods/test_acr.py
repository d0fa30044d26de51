"""ACR: batch norms over a category, noise that belongs to an image, tasks of a batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from test_april_gan import CATEGORY
from torch import Tensor, nn
from torch.nn import functional

from zsadbench import encoders, methods
from zsadbench.encoders.features import FeatureRequest
from zsadbench.errors import NeedsCheckpoint
from zsadbench.methods import TrainableMethod
from zsadbench.running.loading import from_tensor
from zsadbench.support import plugins
from zsadbench.testing import check_method, toy_images

acr = plugins.load("zsadbench.methods", "acr")


@pytest.fixture(scope="module")
def encoder() -> encoders.base.Encoder:
    return encoders.load("tiny")


def make(encoder: encoders.base.Encoder, **changes: object) -> TrainableMethod:
    method = methods.create("acr", encoder=encoder, **{"layers": 2, "output": 4, **changes})
    method.initialise(seed=0)
    return method


def torch_network(network: nn.Module) -> nn.Sequential:
    """Build the same network of torch's own layers, its batch norms in training mode."""
    parts: list[nn.Module] = []
    for layer in [*network.enc, network.fc, network.batch_norm]:
        norm = isinstance(layer, acr.TaskNorm)
        parts.append(nn.BatchNorm1d(len(layer.weight)) if norm else layer)
        if norm:
            parts[-1].load_state_dict(layer.state_dict(), strict=False)
    return nn.Sequential(*parts).train()


def test_scores_and_maps_equal_the_formulas_of_the_page(encoder: encoders.base.Encoder) -> None:
    method, images = make(encoder), toy_images(4, encoder.size)
    tokens = encoder.encode(images, FeatureRequest(tokens={9})).tokens(9)  # the third of four stages
    noise = torch.stack([acr.image_noise(image, tokens[0], 0) for image in images])
    network, raw = torch_network(method.trained), np.zeros((4, 64), np.float32)
    with torch.no_grad():
        for position in range(64):
            real = tokens[:, position]
            embedded = network(torch.cat([real, real + 0.1 * noise[:, position]]))[:4]
            raw[:, position] = (embedded - method.trained.center).square().sum(dim=1).numpy()
    maps = functional.interpolate(torch.tensor(raw).view(4, 1, 8, 8), 64, mode="bilinear", align_corners=False)[:, 0]
    full = np.stack([gaussian_filter(one.numpy(), 4.0) for one in maps])
    full = (full - full.min()) / (full.max() - full.min())
    with torch.inference_mode():
        prediction = method.predict(from_tensor(images, CATEGORY))
    np.testing.assert_allclose(prediction.scores, full.max(axis=(1, 2)), atol=1e-4)
    finished = acr.finish(prediction.maps, method, 64).numpy()
    np.testing.assert_allclose(finished, full, atol=1e-4)
    assert finished.min() == pytest.approx(0, abs=1e-5) and finished.max() == pytest.approx(1, abs=1e-5)


def test_blocks_of_positions_give_what_all_at_once_give(
    encoder: encoders.base.Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, tokens = make(encoder), torch.randn(3, 16, 64, generator=torch.Generator().manual_seed(0))
    whole = method.distances(tokens, tokens.flip(0))
    monkeypatch.setattr(acr, "BLOCK_ELEMENTS", 1)
    torch.testing.assert_close(method.distances(tokens, tokens.flip(0)), whole)


def test_noise_belongs_to_the_pixels_and_the_seed() -> None:
    first, second = toy_images(2, 64)
    like = torch.empty(64, 200)
    noise = acr.image_noise(first, like, 0)
    assert torch.equal(noise, acr.image_noise(first.clone(), like, 0))
    assert not torch.equal(noise, acr.image_noise(second, like, 0))
    assert not torch.equal(noise, acr.image_noise(first, like, 1))
    assert float(noise.mean()) == pytest.approx(0, abs=0.05) and float(noise.std()) == pytest.approx(1, abs=0.05)


def test_norm_uses_the_vectors_of_each_task_and_never_earlier_ones() -> None:
    norm = acr.TaskNorm(1)
    nn.init.ones_(norm.weight)
    nn.init.zeros_(norm.bias)
    tasks = torch.tensor([[[1.0], [3.0]], [[10.0], [30.0]]])
    expected = torch.tensor([[[-1.0], [1.0]], [[-1.0], [1.0]]])
    for mode in (norm.train(), norm.eval()):
        torch.testing.assert_close(mode(tasks), expected, rtol=1e-4, atol=1e-4)


def test_the_loss_of_a_task_averages_distances_and_inverted_ones() -> None:
    distances, pseudo = torch.tensor([[1.0, 3.0, 4.0, 2.0]]), torch.tensor([[False, False, True, True]])
    assert float(acr.task_loss(distances, pseudo)) == pytest.approx((1 + 3 + 1 / 4 + 1 / 2) / 4)


@dataclass
class Steps:
    """What a loss needs of a training batch."""

    images: Tensor
    generator: torch.Generator

    def features(self, encoder: encoders.base.Encoder, request: FeatureRequest) -> object:
        with torch.no_grad():
            return encoder.encode(self.images, request)


def test_a_step_sees_one_position_of_each_group(encoder: encoders.base.Encoder) -> None:
    recipe = methods.TrainRecipe((methods.Stage(1, 1e-3),), batch_size=6, groups=2)
    method = make(encoder, recipe=recipe)
    images = toy_images(6, encoder.size)
    loss = method.loss(Steps(images, torch.Generator().manual_seed(3)), torch.zeros(6), torch.zeros(6, 64, 64))["tasks"]
    generator = torch.Generator().manual_seed(3)
    positions = torch.randint(64, (2,), generator=generator)
    noise = torch.randn(2, 3, 64, generator=generator)
    tokens = encoder.encode(images, FeatureRequest(tokens={9})).tokens(9)
    expected = []
    for task, position in enumerate(positions):
        normal = tokens[3 * task : 3 * task + 3, position]
        embedded = torch_network(method.trained)(torch.cat([normal, normal + 0.1 * noise[task]]))
        distances = (embedded - method.trained.center).square().sum(dim=1)
        expected.append(torch.cat([distances[:3], 1 / distances[3:]]).mean())
    torch.testing.assert_close(loss, torch.stack(expected).mean(), rtol=1e-4, atol=1e-5)
    loss.backward()
    assert all(parameter.grad is not None for parameter in method.trained.parameters())


def test_network_has_the_sizes_and_initial_values_of_the_code() -> None:
    with torch.device("meta"):
        network = acr.Network(1024, 5, 32)
    assert sum(parameter.numel() for parameter in network.parameters()) == 702_496
    network = network.to_empty(device="cpu")
    with torch.no_grad():
        network.draw(torch.Generator().manual_seed(0))
    network.requires_grad_(False)
    assert float(network.enc[0].weight.abs().max()) == pytest.approx(1 / 32, rel=1e-2)
    assert 0 <= float(network.batch_norm.weight.min()) < float(network.batch_norm.weight.max()) <= 1
    assert torch.equal(network.enc[1].weight, torch.ones(512)) and not network.batch_norm.bias.any()
    assert 0.5 < float(network.center.std()) < 1.5


def test_official_state_dicts_load_without_their_running_statistics(encoder: encoders.base.Encoder) -> None:
    source, method = make(encoder), make(encoder)
    method.trained = None
    official = dict(source.trained.state_dict())
    for name in ("enc.1", "enc.4", "batch_norm"):
        width = len(official[f"{name}.weight"])
        official |= {f"{name}.running_mean": torch.zeros(width), f"{name}.running_var": torch.ones(width)}
        official[f"{name}.num_batches_tracked"] = torch.tensor(5)
    with pytest.raises(NeedsCheckpoint, match="acr needs trained weights"):
        method.predict(from_tensor(toy_images(2, 64), CATEGORY))
    method.load_checkpoint(official, "official")
    assert torch.equal(method.trained.center, source.trained.center)


@pytest.mark.parametrize("changes", [{"layer": 3, "output": 2}, {"noise": 1.0, "seed": 5, "sigma": 0.0}])
def test_options_keep_the_contract(changes: dict) -> None:
    check_method("acr", **changes)


def test_a_residual_network_gives_the_third_stages_positions() -> None:
    method = methods.create("acr", encoder=encoders.load("timm:resnet18.tv_in1k", size=64, random_weights=True))
    method.initialise(seed=0)
    assert method.trained.enc[0].in_features == 256
    with torch.inference_mode():
        assert method.predict(from_tensor(toy_images(3, 64), CATEGORY)).maps.shape == (3, 4, 4)
