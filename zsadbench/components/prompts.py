"""Prompt lists as data (prompts.json), the sentences they make for a class noun, and the text features of those.

A list is states ("flawless {}") times templates ("a photo of a {}."). Which noun a method inserts, readable or raw, is
the method's choice (docs/prompts.md#ensembles).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zsadbench.components.sentence_means import Rule, select
from zsadbench.errors import UnknownName, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from zsadbench.encoders.text import TextEncoder


@dataclass(frozen=True)
class PromptList:
    """Phrases with one `{}` each: states take the noun, templates take the state."""

    normal: tuple[str, ...]
    abnormal: tuple[str, ...]
    templates: tuple[str, ...]
    source: str = ""  # where the strings come from, and which nouns that source inserts


def names() -> list[str]:
    """Return the names of the shipped prompt lists, sorted."""
    return sorted(_data()["lists"])


def get(name: str) -> PromptList:
    """Return a shipped prompt list. Raises UnknownName."""
    data = _data()
    if name not in data["lists"]:
        raise UnknownName("prompt list", name, data["lists"])
    entry = data["lists"][name]
    states = data["states"][entry["states"]]
    templates = data["templates"][entry["templates"]]
    return PromptList(tuple(states["normal"]), tuple(states["abnormal"]), tuple(templates), entry["source"])


def sentences(prompt_list: PromptList, noun: str) -> tuple[list[str], list[str]]:
    """Return the normal and the abnormal sentences of a noun: for each state, each template."""
    return _fill(prompt_list.normal, prompt_list, noun), _fill(prompt_list.abnormal, prompt_list, noun)


def text_features(
    text_encoder: TextEncoder, prompt_list: PromptList, noun: str, ensemble: Rule = "mean", **parameters: Any
) -> Tensor:
    """Return the unit rows [normal, abnormal] of a noun: [2, J] float32 on the encoder's device, without gradient.

    `ensemble` and `parameters` are the rule and its arguments in `sentence_means.select`. Raises UnknownName for the
    rule and UsageError for a list without normal or abnormal states.
    """
    normal, abnormal = sentences(prompt_list, noun)
    if not normal or not abnormal:
        raise UsageError(
            f"The prompt list has {len(prompt_list.normal)} normal and {len(prompt_list.abnormal)} abnormal states; "
            "expected at least one of each. Use template_feature for a list with one class."
        )
    embeddings = text_encoder.encode([*normal, *abnormal])
    rows = embeddings.double().cpu().numpy()
    parts = (rows[: len(normal)], rows[len(normal) :])
    return embeddings.new_tensor(np.stack([select(part, ensemble, **parameters) for part in parts]))


def template_feature(text_encoder: TextEncoder, templates: Sequence[str], noun: str, ensemble: Rule = "mean") -> Tensor:
    """Return the unit vector [J] float32 of one noun over templates, without states or gradient.

    CLIP Surgery's text side (docs/methods/clip_surgery.md#text): its redundant feature is that of the empty noun "".
    """
    embeddings = text_encoder.encode([template.format(noun) for template in templates])
    return embeddings.new_tensor(select(embeddings.double().cpu().numpy(), ensemble))


def _fill(states: Sequence[str], prompt_list: PromptList, noun: str) -> list[str]:
    return [template.format(state.format(noun)) for state in states for template in prompt_list.templates]


@cache
def _data() -> Any:
    return json.loads(Path(__file__).with_name("prompts.json").read_text(encoding="utf-8"))
