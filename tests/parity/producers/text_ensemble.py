"""Prompt lists and their ensembles through a text tower."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from zsadbench.components import prompts
from zsadbench.encoders import open_clip

if TYPE_CHECKING:
    from produce import Fixture
    from torch import Tensor

# A fixture's name of a method -> our lists for it.
LISTS = {
    "winclip": ("winclip", "winclip_zqhang21"),
    "april_gan": ("april_gan",),
    "sdp": ("clip_ad",),
    "clip_surgery": ("clip_surgery",),
}


def produce(fixture: Fixture) -> dict[str, Tensor]:
    """Return the text features of every class name for the lists and rules of four methods."""
    tensors = {name: tensor for name, tensor in fixture.backbone.items() if name != "logit_scale"}
    backbone = fixture.spec["backbone"]
    fixture.expect(activation="quickgelu" if backbone["quick_gelu"] else "gelu")
    tower = open_clip.text_from_config(backbone, tensors)
    lists = {method: prompt_list(method, words) for method, words in fixture.options["methods"].items()}
    nouns = fixture.spec["class_names"]

    def features(name: str, rule: str, **parameters: float) -> Tensor:
        prompt_list = prompts.get(name)
        return torch.stack([prompts.text_features(tower, prompt_list, noun, rule, **parameters) for noun in nouns])

    surgery = prompts.get(lists["clip_surgery"]).templates
    return {
        "winclip": features(lists["winclip"], "mean_raw"),
        "april_gan": features(lists["april_gan"], "mean"),
        "sdp_mean": features(lists["sdp"], "mean"),
        "sdp_dbscan_industrial": features(lists["sdp"], "dbscan", eps=0.5, min_samples=15),
        "sdp_dbscan_visa": features(lists["sdp"], "dbscan", eps=1.5, min_samples=25),
        "clip_surgery": torch.stack([prompts.template_feature(tower, surgery, noun) for noun in nouns]),
        "clip_surgery_redundant": prompts.template_feature(tower, surgery, "")[None],
    }


def prompt_list(method: str, words: str) -> str:
    """Return our list with as many templates as a fixture's words for a method's list say."""
    (count,) = (int(word) for word in words.replace(",", "").split("templates")[0].split() if word.isdigit())
    for name in LISTS[method]:
        if len(prompts.get(name).templates) == count:
            return name
    raise NotImplementedError(f"{words!r} for {method}; only {LISTS[method]} are implemented")
