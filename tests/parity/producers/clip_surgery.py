"""CLIP Surgery: similarities with any number of labels, with two, and with an explicit redundant feature."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zsadbench.components.image_scores import minmax
from zsadbench.components.postprocess import resize_maps
from zsadbench.components.similarity import unit
from zsadbench.support import plugins

if TYPE_CHECKING:
    from produce import Fixture
    from torch import Tensor

clip_surgery = plugins.load("zsadbench.methods", "clip_surgery")


def produce(fixture: Fixture) -> dict[str, Tensor]:
    """Return the similarities and the min-max normalised maps, with the intermediates."""
    fixture.expect(map_minmax="per image and label")
    options, batch, text = fixture.options, fixture.batch(), fixture.inputs["text"]
    encoder = fixture.encoder()
    method = fixture.method(
        "clip_surgery",
        encoder,
        blocks=options["surgery_blocks"],
        temperature=options["cls_temperature"],
        align_corners=options["map_align_corners"],
    )
    joint = method.joint_tokens(batch.features(encoder, method.request))
    tokens = unit(joint)
    similarity = clip_surgery.label_surgery(tokens, text, method.config.temperature)
    grids = similarity[:, 1:].permute(0, 2, 1).unflatten(2, (encoder.grid, encoder.grid))  # [B, K, g, g]
    maps = resize_maps(minmax(grids, dim=(-2, -1)).flatten(0, 1), tuple(options["map_size"]), method.align_corners)
    return {
        "similarity": similarity,
        "similarity_two": clip_surgery.label_surgery(tokens, text[:2], method.config.temperature),
        "similarity_redundant": clip_surgery.empty_surgery(tokens, text[:1], fixture.inputs["redundant"][0]),
        "map": maps.unflatten(0, grids.shape[:2]).permute(0, 2, 3, 1),
        "tokens": joint,
        "pos_embed": encoder.positions,
    }
