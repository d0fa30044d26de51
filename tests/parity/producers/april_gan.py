"""APRIL-GAN: the zero-shot outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from produce import Fixture
    from torch import Tensor


def produce(fixture: Fixture) -> dict[str, Tensor]:
    """Return the zero-shot map and score, with the intermediates."""
    fixture.expect(softmax_after_upsampling=True)
    options, batch = fixture.options, fixture.batch()
    encoder = fixture.encoder()
    method = fixture.method(
        "april_gan",
        encoder,
        layers=tuple(options["layers"]),
        logit_scale=options["logit_scale"],
        align_corners=options["align_corners"],
        sigma=options["smoothing_sigma"] or 0.0,
    )
    method.load_checkpoint(fixture.trained, "fixture")
    scores, maps = method.predict(batch)
    features = batch.features(encoder, method.request)
    tokens = [features.tokens(layer) for layer in method.layers]
    stages = [method.stage_map(layer, i, fixture.inputs["text"])[:, ::4, ::4] for i, layer in enumerate(tokens)]
    all_tokens = [torch.cat([features.prefix(layer), features.tokens(layer)], dim=1) for layer in method.layers]
    return {
        "zero_score": scores,
        "zero_map": fixture.full_size(maps, method),
        "stage_probs": torch.stack(stages),
        "tokens": torch.stack(all_tokens),
        "image_embedding": features.embedding,
        "pos_embed": encoder.positions,
    }
