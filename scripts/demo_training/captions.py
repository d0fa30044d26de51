"""What the demo encoder is told about an image: captions tied to its condition, state, defect and noun.

A template says how the photo was taken ("a dark photo of ...") and is true for images that were taken so; a state says
what is wrong ("... with crack") and is true for the defects it names. That keeps the text features of templates and
states apart, so that prompt ensembles of the demo differ as they do with a real CLIP.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import open_clip
import torch
from torch import Tensor

DEFECTS = ("scratch", "crack", "hole", "stain", "spot", "thread", "dent", "missing")
_ALL = frozenset(DEFECTS)
_BREAKS = frozenset({"scratch", "crack", "hole", "dent", "missing"})
_BLEMISHES = frozenset({"scratch", "stain", "spot", "thread", "dent"})
_DIRT = frozenset({"stain", "spot", "thread"})

CONDITIONS = ("plain", "bright", "dark", "blurry", "coarse", "grey", "near", "far")
_ARTICLES = ("a", "the")
_ADJECTIVES = {
    "plain": ("", "good ", "bad ", "clean ", "dirty ", "nice ", "weird "),
    "bright": ("bright ",),
    "dark": ("dark ",),
    "blurry": ("blurry ",),
    "coarse": ("jpeg corrupted ", "low resolution ", "pixelated "),
    "grey": ("black and white ",),
    "near": ("close-up ", "cropped "),
    "far": (),
}
_ENDINGS = ("in the scene.", "for visual inspection.", "for anomaly detection.")
_OTHER = (
    "a photo of my {}.", "a photo of one {}.", "a photo of a cool {}.", "a photo of the cool {}.",
    "a photo of many {}.", "a photo of the hard to see {}.", "there is a {} in the scene.",
    "this is the {} in the scene.", "this is one {} in the scene.", "itap of the {}.", "a rendering of a {}.",
    "a drawing of the {}.", "{}.", "{}", "a {}", "the {}", "a plastic {}.", "a toy {}.",
)  # fmt: skip

NORMAL_STATES = (
    "{}", "flawless {}", "perfect {}", "unblemished {}", "normal {}", "intact {}", "good {}", "{} without flaw",
    "{} without defect", "{} without damage", "{} without scratch", "{} without crack", "{} without contamination",
)  # fmt: skip
ABNORMAL_STATES = {
    "damaged {}": _BREAKS,
    "broken {}": _BREAKS,
    "{} with damage": _BREAKS,
    "imperfect {}": _BLEMISHES,
    "blemished {}": _BLEMISHES,
    "{} with flaw": _BLEMISHES,
    "defective {}": _ALL,
    "abnormal {}": _ALL,
    "anomalous {}": _ALL,
    "bad {}": _ALL,
    "{} with defect": _ALL,
    "{} with contamination": _DIRT,
    "contaminated {}": _DIRT,
    "incomplete {}": frozenset({"missing"}),
    "{} with a missing part": frozenset({"missing"}),
    "{} with stain": frozenset({"stain"}),
    "{} with colour spot": frozenset({"spot"}),
    "{} with a colored spot": frozenset({"spot"}),
    "{} with thread": frozenset({"thread"}),
    "{} with a hole": frozenset({"hole"}),
    "{} with dent": frozenset({"dent"}),
    "dented {}": frozenset({"dent"}),
    "{} with scratch": frozenset({"scratch"}),
    "scratched {}": frozenset({"scratch"}),
    "{} with crack": frozenset({"crack"}),
    "cracked {}": frozenset({"crack"}),
}
# Nouns that say nothing about how a thing looks; among them every held-out category and the benchmarks' categories.
NEUTRAL_NOUNS = (
    "object", "surface", "item", "product", "texture", "part", "sample", "material", "leather", "wood", "pill",
    "gear", "pcb", "tile", "bottle", "cable", "capsule", "carpet", "grid", "hazelnut", "metal nut", "metal_nut",
    "screw", "toothbrush", "transistor", "zipper", "candle", "capsules", "cashew", "chewing gum", "chewinggum",
    "fryum", "macaroni", "pipe fryum", "printed circuit board", "pcb1", "steel", "rail", "road", "brain", "head ct",
    "skin", "colon", "image",
)  # fmt: skip


def _templates(condition: str) -> tuple[str, ...]:
    """Return the templates that say a condition; those of `plain` say nothing and are true for every image."""
    photos = [f"a {word}photo of {article} {{}}." for word in _ADJECTIVES[condition] for article in _ARTICLES]
    if condition == "plain":
        photos += [f"a photo of {article} {{}} {ending}" for article in _ARTICLES for ending in _ENDINGS] + list(_OTHER)
    size = {"near": "large", "far": "small"}.get(condition)
    return tuple(photos + [f"a photo of {article} {size} {{}}." for article in _ARTICLES if size])


TEMPLATES = {condition: _templates(condition) for condition in CONDITIONS}


class Caption(NamedTuple):
    """A sentence and the images for which it is true."""

    text: str
    category: str | None  # None: true for every category
    condition: str  # "plain": true for every condition
    defects: frozenset[str] | None  # None: true for flawless images

    def is_true(self, category: str, condition: str, defect: str | None) -> bool:
        """Say whether the caption is true for an image."""
        state = defect is None if self.defects is None else defect in self.defects
        return state and self.category in (None, category) and self.condition in ("plain", condition)


def caption_pair(rng: np.random.Generator, category: str, condition: str, defect: str) -> tuple[Caption, Caption]:
    """Draw a caption for a flawless thing and one for its defective twin, which share noun and template."""
    known = rng.random() < 0.65
    noun = category if known else str(rng.choice(NEUTRAL_NOUNS))
    said = condition if rng.random() < 0.6 and condition != "plain" else "plain"
    template = str(rng.choice(TEMPLATES[said]))
    true_states = [state for state, kinds in ABNORMAL_STATES.items() if defect in kinds]
    bad = str(rng.choice(true_states))
    good = str(rng.choice(NORMAL_STATES))
    owner = category if known else None
    return (
        Caption(template.format(good.format(noun)), owner, said, None),
        Caption(template.format(bad.format(noun)), owner, said, ABNORMAL_STATES[bad]),
    )


class Vocabulary:
    """The tokens that captions use, numbered from 0 in the order of CLIP's own numbers: the end token stays last."""

    def __init__(self, categories: tuple[str, ...]) -> None:
        """Collect the tokens of all templates, states and nouns, `categories` among them."""
        texts = [template.format("") for group in TEMPLATES.values() for template in group]
        texts += [state.format("") for state in (*NORMAL_STATES, *ABNORMAL_STATES)] + [*NEUTRAL_NOUNS, *categories]
        ids = open_clip.tokenize(texts).unique()
        self.token_ids: Tensor = ids.to(torch.int32)  # [V] sorted numbers in CLIP's vocabulary
        self._compact = torch.zeros(49408, dtype=torch.long)
        self._compact[ids] = torch.arange(len(ids))

    def __len__(self) -> int:
        """Return the number of rows that the token embedding needs."""
        return len(self.token_ids)

    def encode(self, texts: list[str]) -> Tensor:
        """Return compact token numbers [n, 77] int64; padding and unknown words become 0, CLIP's padding."""
        return self._compact[open_clip.tokenize(texts)]
