"""Image anchors: a normal and an abnormal vector of each image, what they steer (prompts, class token), their losses.

The parts of Dual-Anchor behind its merge blocks (docs/methods/dual_anchor.md, §Text, §Refiner, §Training); they do not
know where the anchors come from. B images, M patches, C channels, W width of the text tower.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from zsadbench.components.similarity import unit

STATES = ("normal", "abnormal")
RefinerNorm = Literal["l2", "layernorm", "none"]
RefinerForm = Literal["add", "mul"]


class StatePrompts(nn.Module):
    """Dynamic state prompts: E context vectors, a state token and the image's anchor before the class name (§Text)."""

    def __init__(self, context: int, width: int, text_width: int, dynamic: bool) -> None:
        """`dynamic`: anchors of `width` fill the slot before the class; otherwise one static token a state does."""
        super().__init__()
        self.context = context
        for state in STATES:
            self.register_parameter(f"context_{state}", nn.Parameter(torch.empty(context, text_width)))
            self.register_parameter(f"state_{state}", nn.Parameter(torch.empty(1, text_width)))
            if not dynamic:
                self.register_parameter(f"slot_{state}", nn.Parameter(torch.empty(1, text_width)))
        self.group_proj = nn.Linear(width, text_width) if dynamic else None

    def forward(self, embedded: Tensor, anchors: Tensor) -> Tensor:
        """Put the learned tokens over positions 1..E+2 of token embeddings [K, T, W]: [K, 2, T, W], normal, abnormal.

        anchors: [K, 2, C]; not read where the slot is static.
        """
        slots = (
            torch.stack([self.get_parameter(f"slot_{state}") for state in STATES]).expand(len(embedded), -1, -1, -1)
            if self.group_proj is None
            else self.group_proj(anchors).unsqueeze(2)
        )
        learned = torch.stack(
            [torch.cat([self.get_parameter(f"{part}_{state}") for part in ("context", "state")]) for state in STATES]
        )
        pairs = embedded.unsqueeze(1).expand(-1, 2, -1, -1)
        learned = learned.expand(len(embedded), -1, -1, -1)
        return torch.cat([pairs[:, :, :1], learned, slots, pairs[:, :, self.context + 3 :]], dim=2)


def prompt_template(noun: str, context: int) -> str:
    """Return the sentence whose first context + 2 words, one token each, learned tokens replace (§Text)."""
    return " ".join(["X"] * (context + 2)) + f" {noun}."


def refine(
    token: Tensor,
    anchors: Tensor,
    linear: nn.Linear,
    norm: RefinerNorm = "l2",
    form: RefinerForm = "add",
) -> Tensor:
    """Return the class token [B, C] gated by its cosines with the anchors [B, 2, C] (§Refiner): [B, C]."""
    cosines = (unit(token).unsqueeze(1) * unit(anchors)).sum(dim=2)  # [B, 2]
    if norm == "l2":
        cosines = unit(cosines)
    elif norm == "layernorm":
        cosines = functional.layer_norm(cosines, (2,), eps=1e-5)
    gate: Tensor = linear(cosines).sigmoid()
    return token + gate if form == "add" else token * (1 + gate)


def pool_masks(masks: Tensor, patch: int) -> Tensor:
    """Return the anomalous fraction of each patch of masks [B, S, S] in 0..1: [B, M] (§Training)."""
    return functional.avg_pool2d(masks[:, None], patch).flatten(1)


def orthogonality_loss(anchors: Tensor) -> Tensor:
    """Return the squared cosine of the two anchors [B, 2, C], a mean over images (§Training)."""
    directions = unit(anchors)
    return (directions[:, 0] * directions[:, 1]).sum(dim=1).square().mean()


def group_loss(anchors: Tensor, patches: Tensor, fractions: Tensor) -> Tensor:
    """Return how far anchors [B, 2, C] point from the mean patch of their state, 0 to 2 (§Training).

    patches: [B, M, C]; fractions: [B, M] anomalous share of a patch. Normal patches have none; the abnormal mean is
    weighted by it. Each state counts half, over the images that have it; without any it counts nothing.
    """
    states = ((fractions == 0).to(patches.dtype), fractions)
    return torch.stack([_distance(anchors[:, i], patches, share) for i, share in enumerate(states)]).sum() / 2


def _distance(anchor: Tensor, patches: Tensor, share: Tensor) -> Tensor:
    """Return 1 - cosine of anchors [B, C] with the weighted sum of patches, a mean over images with any weight."""
    mean = unit((share.unsqueeze(1) @ patches).squeeze(1))  # a sum points where the mean does
    present = share.sum(dim=1) > 0
    distances = 1 - (unit(anchor) * mean).sum(dim=1)
    return torch.where(present, distances, 0).sum() / present.sum().clamp_min(1)
