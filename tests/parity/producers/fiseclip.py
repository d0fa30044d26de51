"""FiSeCLIP: every variant's map, score, masks and patch scores; the intermediates of the default."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zsadbench.components.similarity import unit

if TYPE_CHECKING:
    from produce import Fixture, Given
    from torch import Tensor

# What a fixture calls the values of an option -> our options; other values are refused with a KeyError.
PROXIES = {
    "head mean": {"proxy_heads": "mean"},
    "per_head": {"proxy_heads": "per_head"},
    "vv": {"attention": "vv"},
    "qq": {"attention": "qq"},
    "kk": {"attention": "kk"},
}
FUSIONS = {"mean of [semantic, each r]": "mean", "mean": "mean", "half": "half", "fi": "fi", "se": "se"}
SCORES = {"cls_prob + max(map)": "class_token_and_map", "max(map)": "map", "map": "map"}
SHORT = {"ref": "reference_reduce", "lambda": "lambda_"}  # what a variant calls an option


def produce(fixture: Fixture) -> dict[str, Tensor]:
    """Return the outputs of every variant, the default without prefix."""
    outputs = {}
    for name, switches in fixture.options["variants"].items():
        options = fixture.options.changed({SHORT.get(switch, switch): value for switch, value in switches.items()})
        prefix = "" if name == "default" else f"{name}_"
        outputs |= {f"{prefix}{key}": tensor for key, tensor in variant(fixture, options).items()}
    return outputs


def variant(fixture: Fixture, options: Given) -> dict[str, Tensor]:
    """Return the outputs under one setting."""
    encoder, batch, text = fixture.encoder(), fixture.batch(), fixture.inputs["text"]
    method = fixture.method(
        "fiseclip",
        encoder,
        layers=tuple(options["stages"]),
        proxy_depth=options["proxy_layer"] / encoder.depth,
        **PROXIES[options["proxy"]],
        temperature=options["temperature"],
        neighbourhoods=tuple(options["r_list"]),
        batch_images=len(batch),
        references=options["reference_reduce"],
        lambda_=options["lambda_"],
        mu=options["mu"],
        vote=options["vote"],
        fusion=FUSIONS[options["fuse"]],
        image_score=SCORES[options["score"]],
        align_corners=options["align_corners"],
    )
    scores, maps = method.predict(batch)
    features = batch.features(encoder, method.request)
    semantic = method.semantic(features, text) if method.reads_map else None
    matching = method.match(features, batch, semantic)
    outputs = {
        "map": fixture.full_size(maps, method),
        "score": scores,
        "masks": matching.masks.byte(),
        "per_r": matching.scores,
        "pos_embed": encoder.positions,
    }
    if method.reads_map:
        outputs |= {"a_se": semantic, "local_features": method.local_features(features)}
    if method.reads_class_token:
        outputs["cls_prob"] = method.probability(unit(features.embedding), text)
    return outputs
