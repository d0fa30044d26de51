"""The trained part of Bayes-PFL: a bank of random prompts, residual cross-attention, and the fused image vector.

Its modules bear the names of official checkpoints (docs/methods/bayes_pfl.md, §Checkpoints). B images, L patches of
width D, J width of the space shared with text, W width of the text tower.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from zsadbench.components.similarity import unit

from .flows import ContextFlow, Draws, Gaussian, Noise, StateFlow


class Network(nn.Module):
    """Everything trainable (§Text, §Image side): B images, R draws, n vectors a prompt, W text width, J joint width."""

    def __init__(
        self,
        *,
        bank: int,
        context: int,
        states: int,
        flows: int,
        heads: int,
        levels: int,
        width: int,
        text_width: int,
        joint_width: int,
    ) -> None:
        """Make parameters without meaningful values: they are drawn or loaded next.

        `bank` prompts a state with `context` and `states` vectors; `flows` planar steps; `heads` divide `joint_width`;
        `levels` of patch tokens of `width`.
        """
        super().__init__()
        hidden = width // 2  # §Prompt flows, §Image side: 512 of 1024
        self.prompt_context = nn.Parameter(torch.empty(bank, context, text_width))
        self.prompt_state_normal = nn.Parameter(torch.empty(bank, states, text_width))
        self.prompt_state_abnormal = nn.Parameter(torch.empty(bank, states, text_width))
        self.temperature_pixel, self.temperature_image = (nn.Parameter(torch.empty(())) for _ in range(2))
        self.context_encoder = Gaussian(joint_width, hidden, text_width)
        self.state_encoder = Gaussian(text_width, hidden, text_width)
        self.PFL_context = ContextFlow(joint_width, text_width, flows)
        self.PFL_normal, self.PFL_abnormal = (StateFlow(text_width, flows) for _ in range(2))
        self.fuse = Fuse(levels * width, hidden, joint_width)
        self.RCA = ResidualCrossAttention(levels, width, joint_width, heads)
        self.class_mapping, self.image_mapping = (nn.Linear(joint_width, joint_width) for _ in range(2))

    def prompts(self, embeddings: Tensor, noise: Noise) -> tuple[Tensor, dict[str, Draws]]:
        """Return the vectors of every prompt, [B, 2, R, bank, n, W], and the draws that were added to them (§Text)."""
        draws = {
            "context": self.PFL_context(self.context_encoder, embeddings, noise.context),
            "normal": self.PFL_normal(self.state_encoder, noise.normal),
            "abnormal": self.PFL_abnormal(self.state_encoder, noise.abnormal),
        }
        banks = {
            "context": self.prompt_context,
            "normal": self.prompt_state_normal,
            "abnormal": self.prompt_state_abnormal,
        }
        moved = {name: banks[name] + drawn.offsets[:, :, None, None] for name, drawn in draws.items()}
        context = moved["context"]  # [B, R, bank, vectors, W]
        states = [moved[name].expand(len(context), -1, -1, -1, -1) for name in ("normal", "abnormal")]
        return torch.stack([torch.cat([context, state], dim=3) for state in states], dim=1), draws

    def draw(self, generator: torch.Generator) -> None:
        """Draw every parameter (§Text)."""
        states = {"prompt_state_normal": 0.5, "prompt_state_abnormal": -0.5}  # means
        for name, parameter in self.named_parameters():
            if name.startswith("temperature"):
                parameter.fill_(math.log(1 / 0.07))
            elif name.startswith(("PFL_normal", "PFL_abnormal")):
                parameter.normal_(generator=generator)
            elif name.startswith("RCA.q_proj_pre"):  # torch's default for convolutions
                bound = self.RCA.q_proj_pre.in_channels**-0.5
                parameter.uniform_(-bound, bound, generator=generator)
            elif name.endswith("bias"):
                parameter.zero_()
            else:
                parameter.normal_(states.get(name, 0.0), 0.02, generator=generator)


class ResidualCrossAttention(nn.Module):
    """Text features read an image's patches, one linear map a level before it (§Image side)."""

    def __init__(self, levels: int, width: int, joint_width: int, heads: int) -> None:
        """Make the layers; `heads` divides the joint width."""
        super().__init__()
        self.heads = heads
        self.q_proj_pre = nn.Conv1d(joint_width, joint_width, kernel_size=1)
        self.linear_proj = nn.ModuleList(nn.Linear(width, joint_width, bias=False) for _ in range(levels))

    def forward(self, text: Tensor, tokens: Tensor, level: int) -> tuple[Tensor, Tensor]:
        """Return unit text features [B, K, J] after reading, and the unit patches [B, L, J] of tokens [B, L, D]."""
        patches = unit(self.linear_proj[level](tokens))
        queries = self.q_proj_pre(text.mT).mT
        q, kv = (x.unflatten(2, (self.heads, -1)).transpose(1, 2) for x in (queries, patches))
        scale = text.shape[2] ** -0.5  # of the whole width, not of a head's (§Image side)
        read = functional.scaled_dot_product_attention(q, kv, kv, scale=scale)
        return unit(text + read.transpose(1, 2).flatten(2)), patches


class Fuse(nn.Module):
    """One vector of all patches of all levels, pooled by attention (§Image side)."""

    def __init__(self, width: int, hidden: int, joint_width: int) -> None:
        """Make the layers; `width` is that of all levels together."""
        super().__init__()
        self.fuse_modules = nn.Linear(width, hidden)
        self.compress = nn.Linear(hidden, 1)
        self.post_process = nn.Linear(hidden, joint_width)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Fuse tokens, each [B, L, D], to [B, J]."""
        x = self.fuse_modules(torch.cat([*levels], dim=2))
        weights = self.compress(x).softmax(dim=1)
        fused: Tensor = self.post_process((weights * x).sum(dim=1))
        return fused
