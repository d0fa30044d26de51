"""Trained layers that carry a frozen tower's patch tokens into the text space, apart for each of several stages."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zsadbench.components import losses
from zsadbench.components.postprocess import resize_maps
from zsadbench.components.similarity import abnormal_logit, unit
from zsadbench.encoders.base import Encoder


class StageLayers(nn.Module):
    """One map from the visual width D to the joint width J a stage, under the official names of CLIP-AD's code."""

    def __init__(self, stages: int, width: int, joint_width: int, depth: int = 1, relu: bool = False) -> None:
        """Make a linear layer a stage, or `depth` of them, the later ones from J to J, with ReLU between if asked."""
        super().__init__()
        self.fc = nn.ModuleList(_layers(width, joint_width, depth, relu) for _ in range(stages))

    def draw(self, generator: torch.Generator) -> None:
        """Draw every layer as torch's `Linear` does by default."""
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                bound = layer.in_features**-0.5
                for parameter in layer.parameters():
                    nn.init.uniform_(parameter, -bound, bound, generator)

    def forward(self, tokens: Tensor, stage: int) -> Tensor:
        """Map tokens [B, L, D] of the i-th stage to [B, L, J]."""
        mapped: Tensor = self.fc[stage](tokens)
        return mapped


def stage_map(tokens: Tensor, text: Tensor, encoder: Encoder, scale: float, align_corners: bool) -> Tensor:
    """Return the abnormal probability at the input size of mapped patch tokens [B, L, J]: [B, S, S], differentiable.

    text: unit rows [2, J] for all images, or [B, 2, J]. Logits are upsampled before the softmax.
    """
    logits = abnormal_logit(unit(tokens), text, scale).reshape(-1, encoder.grid, encoder.grid)
    return resize_maps(logits, encoder.size, align_corners).sigmoid()


def stage_losses(maps: list[Tensor], masks: Tensor) -> dict[str, Tensor]:
    """Return focal and Dice loss of every stage's map [B, S, S], summed over the stages (docs/training.md#losses)."""
    return {
        "focal": torch.stack([losses.focal(torch.stack([1 - map_, map_], dim=1), masks) for map_ in maps]).sum(),
        "dice": torch.stack([losses.dice(map_, masks) for map_ in maps]).sum(),
    }


def _layers(width: int, joint_width: int, depth: int, relu: bool) -> nn.Module:
    first = nn.Linear(width, joint_width)
    if depth == 1:
        return first  # no sequence around it, so that its tensors have the official names
    later: list[nn.Module] = []
    for _ in range(depth - 1):
        later += [nn.ReLU()] if relu else []
        later.append(nn.Linear(joint_width, joint_width))
    return nn.Sequential(first, *later)
