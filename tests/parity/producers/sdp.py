"""CLIP-AD's SDP: four surgery stages, with and without the official aliasing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from zsadbench.components.postprocess import resize_maps
from zsadbench.components.similarity import unit
from zsadbench.support import plugins

if TYPE_CHECKING:
    from produce import Fixture
    from torch import Tensor

clip_ad = plugins.load("zsadbench.methods", "clip_ad")


def produce(fixture: Fixture) -> dict[str, Tensor]:
    """Return the map before and after smoothing and both terms of the image score, with the intermediates."""
    options, batch, text = fixture.options, fixture.batch(), fixture.inputs["text"]
    fixture.describes("score")
    encoder = fixture.encoder()
    method = fixture.method(
        "clip_ad",
        encoder,
        stages=encoder.depth // options["blocks_per_stage"],
        used_stages=used_stages(options["layers"], options["blocks_per_stage"]),
        official_aliasing=options["official_aliasing"],
        cls_temperature=options["cls_temperature"],
        logit_scale=options["logit_scale"],
        align_corners=options["sdp_align_corners"],
        sigma=options["smoothing_sigma"] or 0.0,
    )
    method.text = lambda category: text
    scores, maps = method.predict(batch)
    features = batch.features(encoder, method.request)
    tokens = [method.stage_tokens(features, method.stages[i]) for i in method.used]
    abnormal = torch.stack([clip_ad.surgery(unit(stage), text, options["cls_temperature"]) for stage in tokens]).sum(0)
    return {
        "map_raw": resize_maps(maps, options["image_size"], method.align_corners),
        "map": fixture.full_size(maps, method),
        "p0": scores[:, 0],
        "p1": scores[:, 1],
        "similarity": torch.stack([-abnormal, abnormal], dim=-1),
        "surgery_tokens": torch.stack(tokens),
        "pos_embed": encoder.positions,
    }


def used_stages(layers: list[int], blocks_per_stage: int) -> tuple[int, ...]:
    """Return the stages that end at the given layers."""
    if any(layer % blocks_per_stage for layer in layers):
        raise NotImplementedError(f"layers {layers} are not all ends of stages of {blocks_per_stage} blocks")
    return tuple(layer // blocks_per_stage for layer in layers)
