"""MuSc, and the two-image variant."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from zsadbench.components import mutual
from zsadbench.components.similarity import unit
from zsadbench.support import plugins

if TYPE_CHECKING:
    from produce import Fixture
    from torch import Tensor

musc = plugins.load("zsadbench.methods", "musc")


def produce(fixture: Fixture) -> dict[str, Tensor]:
    """Return the map and the image scores before and after re-scoring, with the intermediates."""
    options, batch = fixture.options, fixture.batch()
    encoder = fixture.encoder()
    shared = {
        "layers": tuple(options["layers"]),
        "neighbourhoods": tuple(options["r_list"]),
        "topmin_min": options["topmin_min"],
        "topmin_max": options["topmin_max"],
        "align_corners": options["align_corners"],
        "sigma": options["smoothing_sigma"] or 0.0,
    }
    fixture.expect(group_size=len(batch))
    method = fixture.method("musc", encoder, rscin=False, **shared)
    scores, maps = method.predict(batch)
    features = batch.features(encoder, method.request)
    outputs = {
        "score_max": scores,
        "map": fixture.full_size(maps, method),
        "patch_map": maps.flatten(1),
        "pos_embed": encoder.positions,
        "cls_feats": unit(features.embedding),
        "tokens_last": torch.cat([features.prefix(method.layers[-1]), features.tokens(method.layers[-1])], dim=1),
    }
    first, last = musc.neighbours(len(batch), options["topmin_min"], options["topmin_max"])
    tokens = [method.layer_tokens(batch, layer) for layer in method.layers]
    for side in options["r_list"]:
        aggregated = [mutual.aggregate(layer, side) for layer in tokens]
        nearest = [mutual.nearest_similarities(layer) for layer in aggregated]
        outputs[f"msm_r{side}"] = torch.stack([musc.mutual_scores(layer, first, last) for layer in nearest])
        outputs["lnamd_last"] = aggregated[-1]
    windows = options["k_list"]
    if options["rscin"]:
        rescored = fixture.method("musc", encoder, rscin=True, rscin_windows=tuple(windows), **shared)
        outputs["score_rscin"] = rescored.predict(batch).scores
    return outputs
