"""AA-CLIP's trained part: residual adapters in both towers, and projections (docs/methods/aa_clip.md)."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from zsadbench.components.similarity import unit


class Layer(nn.Module):
    """A linear layer without bias, with a LeakyReLU or alone, under the official names (§Checkpoints)."""

    def __init__(self, width: int, out_width: int, relu: bool = True) -> None:
        """Make the layer."""
        super().__init__()
        linear = nn.Linear(width, out_width, bias=False)
        self.fc = nn.Sequential(linear, nn.LeakyReLU(0.01)) if relu else linear  # §Image side

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., width] to [..., out_width]."""
        mapped: Tensor = self.fc(x)
        return mapped


class Widths(NamedTuple):
    """Widths of the tokens of both towers, and of their joint space."""

    image: int
    text: int
    joint: int


class Adapters(nn.Module):
    """Everything trained, under the official names (§Checkpoints)."""

    def __init__(self, widths: Widths, levels: int, image_blocks: int, text_blocks: int, relu: bool) -> None:
        """Make an adapter a block and a projection a level; the last text adapter replaces CLIP's projection (§Text).

        `relu` is for the image projections.
        """
        super().__init__()
        image, text, joint = widths
        texts = [Layer(text, text) for _ in range(text_blocks)]
        self.text_adapter = nn.ModuleList([*texts, Layer(text, joint)])
        self.image_adapter = nn.ModuleDict(
            {
                "layer_adapters": nn.ModuleList(Layer(image, image) for _ in range(image_blocks)),
                "seg_proj": nn.ModuleList(Layer(image, joint, relu) for _ in range(levels)),
                "det_proj": Layer(image, joint, relu),
            }
        )


def mix(x: Tensor, adapted: Tensor, weight: float) -> Tensor:
    """Return the residual rule of both towers: tokens [..., D] and their adaptation, equally long (§Image side)."""
    turned: Tensor = weight * unit(adapted) * x.norm(dim=-1, keepdim=True)
    return turned + (1 - weight) * x
