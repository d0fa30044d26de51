"""What several methods compute alike: the text features of a category, and cosine similarity with text and memories."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from zsadbench.components import prompts
from zsadbench.components.sentence_means import Rule
from zsadbench.datasets import Category
from zsadbench.encoders.base import Encoder
from zsadbench.encoders.text import TextEncoder
from zsadbench.errors import WeightsError

TextSource = Callable[[Category], Tensor]  # category -> unit rows [2, J]: normal, abnormal
BLOCK_ELEMENTS = 2**24  # similarities held at once by nearest_distance: 64 MiB of float32


class CategoryText:
    """Text features [2, J] of a category from an encoder's text tower, computed once a category."""

    def __init__(
        self,
        encoder: Encoder | None,
        prompt_list: str,
        *,
        noun: Literal["raw", "readable"],
        ensemble: Rule = "mean",
        **parameters: Any,
    ) -> None:
        """Use a prompt list and ensemble of `components.prompts`; `noun` is the folder name or the dataset's noun.

        `parameters` are those of the ensembling rule (`zsadbench.components.sentence_means.select`).

        Raises WeightsError when the encoder has no text tower.
        """
        self._tower, self._prompts, self._noun = text_tower(encoder), prompts.get(prompt_list), noun
        self._ensemble, self._parameters = ensemble, parameters
        self._known: dict[Category, Tensor] = {}

    def __call__(self, category: Category) -> Tensor:
        """Return the unit rows [2, J] float32 [normal, abnormal] of a category."""
        if category not in self._known:
            noun = category.name if self._noun == "raw" else category.noun
            with torch.inference_mode(False), torch.no_grad():  # a cached inference tensor could not be trained against
                self._known[category] = prompts.text_features(
                    self._tower, self._prompts, noun, self._ensemble, **self._parameters
                )
        return self._known[category]


def text_tower(encoder: Encoder | None) -> TextEncoder:
    """Return an encoder's text tower. Raises WeightsError when it has none."""
    if encoder is None or encoder.text is None:
        raise _without_text(encoder)
    return encoder.text


def joint_width(encoder: Encoder) -> int:
    """Return J, the width of the space that an encoder's images and text share. Raises WeightsError without one."""
    if encoder.joint_width is None:
        raise _without_text(encoder)
    return encoder.joint_width


def _without_text(encoder: Encoder | None) -> WeightsError:
    return WeightsError(
        f"Encoder {encoder.spec if encoder else None!r} has no text tower; expected one that embeds images and "
        "text, such as open_clip:ViT-L-14-336/openai or demo. Choose another with --encoder SPEC."
    )


def abnormal_logit(features: Tensor, text: Tensor, scale: float) -> Tensor:
    """Return scale * (cos(abnormal) - cos(normal)) of unit features [..., J] with unit text: [...].

    text: [2, J] for all, or [B, 2, J] with one pair for each of B leading features [B, L, J].

    Its sigmoid is the abnormal probability of the two-class softmax over scale * cosine.
    """
    direction = text[..., 1, :] - text[..., 0, :]
    return scale * (features @ direction.unsqueeze(-1)).squeeze(-1)


def nearest_distance(tokens: Tensor, memory: Tensor) -> Tensor:
    """Return min over memory rows of (1 - cos) for unit tokens [..., D] and unit memory [R, D]: [...], 0 to 2."""
    rows = torch.split(tokens.flatten(0, -2), max(1, BLOCK_ELEMENTS // len(memory)))
    nearest = torch.cat([(block @ memory.T).amax(dim=1) for block in rows])
    return (1 - nearest).clamp_min(0).reshape(tokens.shape[:-1])


def unit(vectors: Tensor) -> Tensor:
    """Scale vectors [..., D] to length 1."""
    return functional.normalize(vectors, dim=-1)
