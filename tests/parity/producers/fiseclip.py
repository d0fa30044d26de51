"""FiSeCLIP: every variant's map, score, masks and patch scores; the intermediates of the default."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zsadbench.components.similarity import unit

if TYPE_CHECKING:
    from produce import Fixture
    from torch import Tensor

# What a fixture calls an option's values -> ours; other values are refused with a KeyError.
PROXY_HEADS = {"head mean": "mean", "per_head": "per_head"}
FUSIONS = {"mean of [semantic, each r]": "mean", "half": "half", "fi": "fi"}
SWITCHES = {"proxy": "proxy", "fuse": "fuse", "ref": "reference_reduce", "vote": "vote"}


def produce(fixture: Fixture) -> dict[str, Tensor]:
    """Return the outputs of every variant, the default without prefix."""
    fixture.expect(score="cls_prob + max(map)")
    outputs = {}
    for name, switches in fixture.options["variants"].items():
        options = fixture.options | {SWITCHES[switch]: value for switch, value in switches.items()}
        prefix = "" if name == "default" else f"{name}_"
        outputs |= {f"{prefix}{key}": tensor for key, tensor in variant(fixture, options).items()}
    return outputs


def variant(fixture: Fixture, options: dict[str, Any]) -> dict[str, Tensor]:
    """Return the outputs under one setting."""
    encoder, batch, text = fixture.encoder(), fixture.batch(), fixture.inputs["text"]
    method = fixture.method(
        "fiseclip",
        encoder,
        layers=tuple(options["stages"]),
        proxy_depth=options["proxy_layer"] / encoder.depth,
        proxy_heads=PROXY_HEADS[options["proxy"]],
        temperature=options["temperature"],
        neighbourhoods=tuple(options["r_list"]),
        batch_images=len(batch),
        references=options["reference_reduce"],
        lambda_=options["lambda_"],
        mu=options["mu"],
        vote=options["vote"],
        fusion=FUSIONS[options["fuse"]],
        align_corners=options["align_corners"],
    )
    scores, maps = method.predict(batch)
    features = batch.features(encoder, method.request)
    semantic = method.semantic(features, text)
    matching = method.match(features, batch, semantic)
    return {
        "map": fixture.full_size(maps, method),
        "score": scores,
        "masks": matching.masks.byte(),
        "per_r": matching.scores,
        "a_se": semantic,
        "cls_prob": method.probability(unit(features.embedding), text),
        "local_features": method.local_features(features),
        "pos_embed": encoder.positions,
    }
