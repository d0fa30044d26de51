"""The trained part of AdaCLIP: static prompts, generators of dynamic ones, and projection layers, under official names.

docs/methods/adaclip.md, §Image side. B images, M prompts, D width of the image tower, J of the joint space.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Heads(nn.Module):
    """Linear layers side by side."""

    def __init__(self, count: int, inputs: int, outputs: int) -> None:
        """Make the layers."""
        super().__init__()
        self.head = nn.ModuleList(nn.Linear(inputs, outputs) for _ in range(count))


class StaticPrompts(nn.Module):
    """The same prompts for all images, others before each block of one tower."""

    def __init__(self, depth: int, length: int, width: int) -> None:
        """Make `length` prompts for each of `depth` blocks."""
        super().__init__()
        self.static_prompts = nn.ParameterList(nn.Parameter(torch.empty(length, width)) for _ in range(depth))


class HybridPrompts(nn.Module):
    """Everything trainable; kinds of prompts that are not used, and towers without prompts, have no parameters."""

    def __init__(
        self,
        widths: Mapping[str, int],
        joint_width: int,
        *,
        kinds: str,
        length: int,
        depth: int,
        projections: tuple[int, int],
    ) -> None:
        """Make parameters without meaningful values: they are drawn or loaded next.

        widths: of the prompted towers, "visual" and "text"; kinds: what prompts are the sum of, "static", "dynamic" or
        "static+dynamic"; projections: how many layers of patch tokens are projected, and their width D.
        """
        super().__init__()
        self.depth = depth
        for tower, width in widths.items():
            if "static" in kinds:
                self.add_module(f"{tower}_prompter", StaticPrompts(depth, length, width))
            if "dynamic" in kinds:
                self.add_module(f"dynamic_{tower}_prompt_generator", Heads(length, joint_width, width))
        self.patch_token_layer = Heads(*projections, joint_width)
        self.cls_token_layer = Heads(1, joint_width, joint_width)

    def prompts(self, tower: str, frozen: Tensor | None) -> list[Tensor]:
        """Return the prompts before each of the first blocks, [B or 1, M, width]; none for an unprompted tower.

        frozen: [B, J] embeddings of the images without prompts, which the dynamic ones come from (§Image side).
        """
        static = getattr(self, f"{tower}_prompter", None)
        generator = getattr(self, f"dynamic_{tower}_prompt_generator", None)
        contexts = [] if static is None else [prompts[None] for prompts in static.static_prompts]
        if generator is None:
            return contexts
        dynamic = torch.stack([head(frozen) for head in generator.head], dim=1)
        return [dynamic + context for context in contexts] or [dynamic] * self.depth

    def project(self, tokens: list[Tensor], embedding: Tensor) -> tuple[Tensor, Tensor]:
        """Project patch tokens [B, L, D] of l layers and embeddings [B, J]: [B, l, L, J] and [B, J] (§Image side)."""
        patches = [head(layer) for head, layer in zip(self.patch_token_layer.head, tokens, strict=True)]
        return torch.stack(patches, dim=1), self.cls_token_layer.head[0](embedding)

    def draw(self, generator: torch.Generator) -> None:
        """Draw prompts from N(0, 0.02) and linear layers as torch's `Linear` does (§Image side)."""
        for module in self.modules():
            if isinstance(module, StaticPrompts):
                for prompts in module.static_prompts:
                    nn.init.normal_(prompts, 0.0, 0.02, generator)
            elif isinstance(module, nn.Linear):
                bound = module.in_features**-0.5
                for parameter in (module.weight, module.bias):
                    nn.init.uniform_(parameter, -bound, bound, generator)
