"""Prompt lists and their ensembles through a text tower."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from zsadbench.components import prompts
from zsadbench.encoders import open_clip

if TYPE_CHECKING:
    from produce import Fixture
    from torch import Tensor


def produce(fixture: Fixture) -> dict[str, Tensor]:
    """Return the text features of every class name for the lists and rules of four methods."""
    tensors = {name: tensor for name, tensor in fixture.backbone.items() if name != "logit_scale"}
    tower = open_clip.text_from_config(fixture.spec["backbone"], tensors)
    nouns = fixture.spec["class_names"]

    def features(name: str, rule: str, **parameters: float) -> Tensor:
        prompt_list = prompts.get(name)
        return torch.stack([prompts.text_features(tower, prompt_list, noun, rule, **parameters) for noun in nouns])

    surgery = prompts.get("clip_surgery").templates
    return {
        "winclip": features("winclip_zqhang21", "mean_raw"),
        "april_gan": features("april_gan", "mean"),
        "sdp_mean": features("clip_ad", "mean"),
        "sdp_dbscan_industrial": features("clip_ad", "dbscan", eps=0.5, min_samples=15),
        "sdp_dbscan_visa": features("clip_ad", "dbscan", eps=1.5, min_samples=25),
        "clip_surgery": torch.stack([prompts.template_feature(tower, surgery, noun) for noun in nouns]),
        "clip_surgery_redundant": prompts.template_feature(tower, surgery, "")[None],
    }
