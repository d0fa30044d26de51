"""CLIP-AD's SDP+: the map with the trained layers, both terms of the image score, the training loss, its gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from zsadbench.components.postprocess import resize_maps

if TYPE_CHECKING:
    from produce import Fixture
    from torch import Tensor

    from zsadbench.methods import TrainableMethod


def produce(fixture: Fixture) -> dict[str, Tensor]:
    """Return the map before and after smoothing, p0, p1, loss and gradients, with the intermediates."""
    fixture.expect(softmax_after_upsampling=True, loss="sum over stages of focal + dice(abnormal)")
    fixture.describes("score")
    method, batch, text = make(fixture), fixture.batch(), fixture.inputs["text"]
    features = batch.features(method.encoder, method.request | method.training_request)
    method.text = lambda category: text
    scores, maps = method.predict(batch)
    size = fixture.options["image_size"]
    return {
        "map_raw": maps,
        "map": fixture.full_size(maps, method),
        "p0": scores[:, 0],
        "p1": scores[:, 1],
        "map_sdp": resize_maps(method.surgery_maps(features, text), size, method.align_corners),
        "map_linear": torch.stack([method.mapped(features, i, text) for i in method.used]).sum(dim=0),
        "pos_embed": method.encoder.positions,
        **train(fixture),
    }


@torch.inference_mode(False)
@torch.enable_grad()
def train(fixture: Fixture) -> dict[str, Tensor]:
    """Return the loss of the fixture's images and masks, and the gradients that the fixture names."""
    method, batch = make(fixture), fixture.batch()
    batch.categories = (batch.category,) * len(batch)
    masks = fixture.inputs["gt"].float()
    terms = method.loss(batch, masks.flatten(1).amax(dim=1).long(), masks)
    loss = torch.stack(list(terms.values())).sum()
    loss.backward()
    layers = method.trained.fc
    return {
        "loss": loss.detach()[None],
        "grad_fc0_weight": layers[0].weight.grad,
        "grad_fc1_bias": layers[1].bias.grad,
    }


def make(fixture: Fixture) -> TrainableMethod:
    """Return the method with the fixture's options and layers."""
    options, encoder = fixture.options, fixture.encoder()
    stages = encoder.depth // options["blocks_per_stage"]
    ends = [options["blocks_per_stage"] * (i + 1) for i in range(stages)]
    if options["layers"] != ends:
        raise NotImplementedError(f"layers {options['layers']}; only the ends of all stages, {ends}, are implemented")
    method = fixture.method(
        "clip_ad.sdp_plus",
        encoder,
        stages=stages,
        official_aliasing=options["official_aliasing"],
        cls_temperature=options["cls_temperature"],
        logit_scale=options["logit_scale"],
        align_corners=options["sdp_align_corners"],
        mapping_align_corners=options["linear_align_corners"],
        sigma=options["smoothing_sigma"] or 0.0,
    )
    method.load_checkpoint(fixture.trained, "fixture")
    return method
