"""ACR: maps and scores before and after the category's min-max, the training loss, its gradients, one Adam step."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import torch

from zsadbench import methods
from zsadbench.components.postprocess import finish
from zsadbench.support import plugins

if TYPE_CHECKING:
    from produce import Fixture
    from torch import Tensor

acr = plugins.load("zsadbench.methods", "acr")


def produce(fixture: Fixture) -> dict[str, Tensor]:
    """Return everything that the fixture lists."""
    fixture.expect(batch_norm_mode="train", batch_norm_eps=1e-05)
    fixture.describes("loss", "normalisation")
    method, size = make(fixture), fixture.options["image_size"]
    tokens = fixture.inputs["features_test"].transpose(1, 2)  # [N, L, D]
    noise = fixture.inputs["noise_test"].transpose(0, 1)
    grid = method.distances(tokens, noise)
    raw = finish(grid, method, size)
    scores, maps = method.normalised(grid)
    tasks = acr.with_pseudo_anomalies(tokens.transpose(0, 1), noise.transpose(0, 1), method.config.noise)
    return {
        "map_grid": grid,
        "map_raw": raw,
        "map": finish(maps, method, size),
        "score_raw": raw.amax(dim=(1, 2)),
        "score": scores,
        "z": method.trained.embed(tasks)[:, : len(tokens)].transpose(0, 1),
        **train(fixture),
    }


@torch.inference_mode(False)
@torch.enable_grad()
def train(fixture: Fixture) -> dict[str, Tensor]:
    """Return the loss of the fixture's tasks, its gradients, and the centre after one step of Adam."""
    network, options = make(fixture).trained, fixture.options
    optimiser = torch.optim.Adam(network.parameters(), lr=options["learning_rate"], betas=options["adam_betas"])
    x, y = fixture.inputs["x_train"].clone(), fixture.inputs["y_train"].clone()
    loss = acr.task_loss(network(x), y == 1)
    loss.backward()
    gradients = {
        "grad_center": network.center.grad.clone(),
        "grad_enc0_weight": network.enc[0].weight.grad.clone(),
        "grad_fc_weight": network.fc.weight.grad.clone(),
    }
    optimiser.step()
    return {"loss": loss.detach()[None], **gradients, "center_after_step": network.center.detach()}


def make(fixture: Fixture) -> methods.TrainableMethod:
    """Return the method with the fixture's options and weights; the features of its encoder are given."""
    options = fixture.options
    encoder = SimpleNamespace(
        layer_shape=lambda layer: (options["grid"], options["feature_dim"]),
        stages=lambda n: tuple(range(1, n + 1)),
        preprocess=None,
        device="cpu",
        size=options["image_size"],
    )
    method = fixture.method(
        "acr",
        encoder,
        layers=options["layers"],
        output=options["output_size"],
        noise=options["noise_scale"],
        align_corners=options["align_corners"],
        sigma=options["smoothing_sigma"],
    )
    method.load_checkpoint(fixture.trained, "fixture")
    return method
