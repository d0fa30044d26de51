"""APRIL-GAN: zero-shot and few-shot outputs, the training loss and its gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from zsadbench.components.postprocess import finish

if TYPE_CHECKING:
    from produce import Fixture
    from torch import Tensor

    from zsadbench.encoders.features import Features
    from zsadbench.methods import TrainableMethod


def produce(fixture: Fixture) -> dict[str, Tensor]:
    """Return maps, score, loss and gradients, with the intermediates."""
    fixture.expect(
        softmax_after_upsampling=True,
        loss="sum over stages of focal + dice(abnormal)",
        focal={"gamma": 2, "smooth": 1e-5},
        dice={"smooth": 1, "per_image": True},
    )
    fixture.expect(num_stages=len(fixture.options["layers"]))
    method, batch = make(fixture, shots=0), fixture.batch()
    evidence, maps = method.predict(batch)
    features = batch.features(method.encoder, method.request)
    tokens = [features.tokens(layer) for layer in method.layers]
    stages = [method.stage_map(layer, i, fixture.inputs["text"])[:, ::4, ::4] for i, layer in enumerate(tokens)]
    all_tokens = [torch.cat([features.prefix(layer), features.tokens(layer)], dim=1) for layer in method.layers]
    return {
        "zero_score": method.finalise(evidence).scores,
        "zero_map": fixture.full_size(maps, method),
        "stage_probs": torch.stack(stages),
        "tokens": torch.stack(all_tokens),
        "image_embedding": features.embedding,
        "pos_embed": method.encoder.positions,
        **(few_shot(fixture, features) if fixture.options.get("k_shot") else {}),
        **train(fixture),
    }


def few_shot(fixture: Fixture, features: Features) -> dict[str, Tensor]:
    """Return the map of the reference images alone, and the whole one with it."""
    method, batch = make(fixture, shots=fixture.options["k_shot"]), fixture.batch()
    method.remember(fixture.batch("ref_images"))
    return {
        "few_map": finish(method.memory_map(features, batch.category), method, fixture.options["image_size"]),
        "fused_map": fixture.full_size(method.predict(batch).maps, method),
    }


@torch.inference_mode(False)
@torch.enable_grad()
def train(fixture: Fixture) -> dict[str, Tensor]:
    """Return the loss of the fixture's images and masks, and its gradients in the first layer."""
    method, batch = make(fixture, shots=0), fixture.batch()
    batch.categories = (batch.category,) * len(batch)
    masks = fixture.inputs["gt"].float()
    terms = method.loss(batch, masks.flatten(1).amax(dim=1).long(), masks)
    loss = torch.stack(list(terms.values())).sum()
    loss.backward()
    first = method.trained.fc[0]
    return {"loss": loss.detach()[None], "grad_fc0_weight": first.weight.grad, "grad_fc0_bias": first.bias.grad}


def make(fixture: Fixture, shots: int) -> TrainableMethod:
    """Return the method with the fixture's options and layers."""
    options = fixture.options
    method = fixture.method(
        "april_gan",
        fixture.encoder(),
        layers=tuple(options["layers"]),
        logit_scale=options["logit_scale"],
        align_corners=options["align_corners"],
        sigma=options["smoothing_sigma"] or 0.0,
        shots=shots,
    )
    method.load_checkpoint(fixture.trained, "fixture")
    return method
