"""Dual-Anchor's options, and everything trainable under the names of its checkpoints."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from zsadbench.methods import EncoderConfig, Stage, TrainRecipe

from .anchors import RefinerForm, RefinerNorm, StatePrompts
from .merging import MergeBlock, Merged, run_blocks

CLIP = "open_clip:ViT-L-14-336/openai"


@dataclass(frozen=True)
class DualAnchorConfig(EncoderConfig):
    """Options; sources are sections of docs/methods/dual_anchor.md, "inferred" marks what the paper does not say."""

    encoder: str = "timm:vit_large_patch16_dinov3.lvd1689m"  # §Encoder
    size: int | None = 512  # inferred: the paper's 518 is no multiple of the patch side 16 (§Encoder)
    text_encoder: str = CLIP  # whose text tower reads the prompts (§Encoder); "": the image encoder's own
    crop_from: int | None = None  # 518: resize to it, keep the top-left square, repeat the map's edge (§Encoder)
    layers: tuple[int, ...] | None = None  # None: four at equal depth, 6,12,18,24 of 24 blocks
    groups: tuple[int, ...] = (16, 8, 4, 2)  # group tokens that enter each block (Table 4)
    heads: int = 8  # of the cross-attention; inferred (§Merge blocks)
    tau: float = 1.0  # temperature of the assignment; inferred (§Merge blocks)
    hard: bool = False  # one-hot assignment; inferred (§Merge blocks)
    init_first_block: bool = True  # the first block's patches attend to the learnable bank; inferred (§Merge blocks)
    update_residual: bool = True  # the last block adds to its patches; inferred (§Merge blocks)
    hgm: bool = True  # False: two static anchors instead of merge blocks (row "w/o HGM")
    ggtr: bool = True  # False: the class token is not refined (row "w/o GGTR")
    ggtr_norm: RefinerNorm = "l2"  # of the two cosines; inferred (§Refiner)
    ggtr_form: RefinerForm = "add"  # §Refiner
    dsp: bool = True  # False: a static token in the prompt instead of the anchor (row "w/o DSP")
    context: int = 12  # context vectors E of a prompt; inferred (§Text)
    noun: Literal["readable", "raw", "object"] = "readable"  # class in the prompt (§Text)
    align: Literal["visual_down", "text_up"] = "visual_down"  # which side is mapped to the other; inferred (§Alignment)
    map_mode: Literal["per_layer", "mean_plus_assign"] = "per_layer"  # §Map
    score: Literal["cls", "fused"] = "cls"  # fused: mean with the map's largest pixels (§Image score)
    top: int = 1  # how many pixels that is (§Image score)
    dice_normal: bool = False  # adds the Dice loss of the normal channel (§Training)
    align_corners: bool = True  # inferred (§Map)
    sigma: float = 8.0  # inferred (§Smoothing)
    trained_on: str = "visa"  # dataset of the checkpoint
    recipe: TrainRecipe = TrainRecipe((Stage(epochs=10, lr=1e-4),), batch_size=8)  # §Training

    def on(self, spec: str) -> DualAnchorConfig:
        """Return the options for another encoder, which brings its own text tower; timm's have none and keep CLIP's."""
        text_encoder = (self.text_encoder or CLIP) if spec.startswith("timm:") else ""
        return replace(super().on(spec), text_encoder=text_encoder, crop_from=None)


class Network(nn.Module):
    """Everything trainable, under the names of §Checkpoints; an ablation lacks the parameters of what it removes."""

    def __init__(self, config: DualAnchorConfig, layers: int, width: int, text_width: int, joint_width: int) -> None:
        """Make parameters without meaningful values: they are drawn or loaded next."""
        super().__init__()
        self.config = config
        if config.hgm:
            self.groups = nn.ParameterDict({"bank": torch.empty(1, config.groups[0], width)})
            self.blocks = nn.ModuleList(_block(config, h, layers, width) for h in range(layers))
        else:
            self.anchors = nn.ParameterDict({"static": torch.empty(2, width)})
        if config.ggtr:
            self.refiner = nn.Linear(2, width)
        self.prompt = StatePrompts(config.context, width, text_width, config.dsp)
        self.text_up: nn.Sequential | None = None
        if config.align == "text_up":  # Talk2DINO's map (§Alignment)
            self.text_up = nn.Sequential(nn.Linear(joint_width, width), nn.Tanh(), nn.Linear(width, width))
        else:
            self.proj = nn.ModuleList(nn.Linear(width, joint_width, bias=False) for _ in range(layers))
            self.proj_cls = nn.Linear(width, joint_width, bias=False)
            if config.hgm:
                self.proj_assign = nn.Linear(width, joint_width, bias=False)
        self.log_scale_pixel, self.log_scale_image = (nn.Parameter(torch.empty(())) for _ in range(2))

    def merge(self, patches: Sequence[Tensor], noise: Sequence[Tensor] | None) -> Merged | None:
        """Run the merge blocks on L times [B, M, C]; None without them."""
        if not self.config.hgm:
            return None
        return run_blocks(self.blocks, self.config.groups, self.groups["bank"], patches, noise)

    def align_token(self, token: Tensor) -> Tensor:
        """Return the class token [B, C] in the space of the cosines: [B, J]."""
        aligned: Tensor = token if self.text_up is not None else self.proj_cls(token)
        return aligned

    def align_patches(self, patches: Sequence[Tensor], merged: Merged | None) -> list[Tensor]:
        """Return the feature sets that maps are made of, each [B, M, J] (§Map)."""
        down = self.text_up is None
        sets = [self.proj[i](layer) if down else layer for i, layer in enumerate(patches)]
        if self.config.map_mode == "mean_plus_assign":
            sets = [torch.stack(sets).mean(dim=0)]
        if merged is not None:
            sets.append(self.proj_assign(merged.patches) if down else merged.patches)
        return sets

    def draw(self, generator: torch.Generator, projection: Tensor | None) -> None:
        """Draw every parameter; `projection` [J, C], where given, is the start of all maps from patches to text."""
        for name, parameter in self.named_parameters():
            if name.startswith("log_scale"):
                parameter.fill_(math.log(1 / 0.07))  # CLIP's start (§Map, §Image score)
            elif name == "refiner.bias":
                parameter.fill_(-2.0)  # a gate of 0.12: refinement starts near identity (§Refiner)
            elif name.endswith(".bias") or ".init.out." in name:  # zero: blocks start as identity (§Merge blocks)
                parameter.zero_()
            elif ".norm_" in name:
                parameter.fill_(1.0)
            elif name.startswith("proj"):
                if projection is None:
                    nn.init.xavier_uniform_(parameter, generator=generator)  # §Alignment
                else:
                    parameter.copy_(projection)
            elif name.startswith(("groups.", "anchors.", "prompt.", "refiner.")) or name.endswith("update.out.weight"):
                parameter.normal_(0.0, 0.02, generator=generator)  # §Text, §Merge blocks
            else:  # torch's Linear; at the real width 1024 its spread is about that of N(0, 0.02)
                bound = parameter.shape[1] ** -0.5
                parameter.uniform_(-bound, bound, generator=generator)


def _block(config: DualAnchorConfig, h: int, layers: int, width: int) -> MergeBlock:
    return MergeBlock(
        width,
        config.heads,
        tau=config.tau,
        hard=config.hard,
        init=config.init_first_block or h > 0,
        update=h == layers - 1,
        residual=config.update_residual,
    )
