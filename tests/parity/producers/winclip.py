"""WinCLIP: windows, harmonic maps, and the memory of WinCLIP+ where the fixture has reference images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zsadbench.components.similarity import abnormal_logit
from zsadbench.support import plugins

if TYPE_CHECKING:
    from produce import Fixture
    from torch import Tensor

winclip = plugins.load("zsadbench.methods", "winclip")


def produce(fixture: Fixture) -> dict[str, Tensor]:
    """Return the zero-shot outputs, the few-shot outputs and the intermediates."""
    fixture.expect(window_stride=1, few_shot_patch_tokens="last block output, no ln_post, no proj")
    fixture.describes("aggregation", "few_shot_fusion")
    options, batch = fixture.options, fixture.batch()
    encoder = fixture.encoder()
    shared = {
        "window_scales": tuple(options["window_scales"]),
        "include_image_scale": options["include_image_scale"],
        "temperature": options["temperature"],
        "align_corners": options["align_corners"],
        "sigma": options["smoothing_sigma"] or 0.0,
    }
    zero_shot = fixture.method("winclip", encoder, **shared)
    scores, grid = zero_shot.predict(batch)
    outputs = {"zero_score": scores, "zero_grid": grid, "zero_map": fixture.full_size(grid, zero_shot)}
    features = batch.features(encoder, zero_shot.request)
    views = zero_shot.views(features)
    outputs |= {"image_embedding": features.embedding, "p_image": scores, "pos_embed": encoder.positions}
    for scale, windows, cover in zip(options["window_scales"], views.windows, zero_shot.covers, strict=True):
        probabilities = abnormal_logit(windows, fixture.inputs["text"], 1 / options["temperature"]).double().sigmoid()
        harmonic = winclip.aggregate(probabilities, cover).float().unflatten(1, (encoder.grid, encoder.grid))
        outputs[f"harm{scale}"] = harmonic
    if shots := options.get("k_shot"):
        few_shot = fixture.method("winclip", encoder, shots=shots, **shared)
        few_shot.remember(fixture.batch("ref_images"))
        scores, grid = few_shot.predict(batch)
        few_features = batch.features(encoder, few_shot.request)
        association = few_shot.association(few_shot.views(few_features), batch.category)
        outputs |= {"few_score": scores, "few_grid": association, "few_map": fixture.full_size(grid, few_shot)}
        outputs["patch_tokens"] = few_features.tokens(encoder.depth)
    return outputs
