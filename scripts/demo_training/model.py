"""The demo CLIP: a stock open_clip model over a compact vocabulary, its forward over token subsets, and its files."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import open_clip
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from zsadbench.data import procedural

EMBED_DIM = 48
VISION = {"image_size": 96, "patch_size": 8, "width": 48, "layers": 12, "head_width": 16, "mlp_ratio": 2.0}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 48, "heads": 3, "layers": 2, "mlp_ratio": 2.0}
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
LOGIT_SCALE = 100.0
STAGE = 3  # blocks of one of the four stages of CLIP-AD
WEIGHTS, CARD = "demo.safetensors", "demo.json"


class ImageFeatures(NamedTuple):
    """Unit-length features of images in the space shared with text."""

    image: Tensor  # [B, D] of the class token
    values: Tensor  # [B, L, D] of the last block's value path, without attention, residual or feed-forward
    stage: Tensor  # [B, L, D] of the v-v attention of the last stage, summed over its blocks


def build(vocabulary_size: int, seed: int) -> open_clip.CLIP:
    """Return a freshly initialised model for a compact vocabulary."""
    torch.manual_seed(seed)
    model = open_clip.CLIP(EMBED_DIM, dict(VISION), {**TEXT, "vocab_size": vocabulary_size}, quick_gelu=False)
    with torch.no_grad():
        model.logit_scale.fill_(math.log(LOGIT_SCALE))
    return model


def normalise_pixels(images: Tensor) -> Tensor:
    """Turn images in 0..1 into the model's input."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    return (images - mean) / std


def encode_images(model: open_clip.CLIP, images: Tensor, keep: Tensor | None = None) -> ImageFeatures:
    """Encode images [B, 3, S, S] in 0..1 from the patches `keep` [B, k] alone (all where None)."""
    visual = model.visual
    tokens = visual._embeds(normalise_pixels(images))
    if keep is not None:
        positions = torch.cat([torch.zeros_like(keep[:, :1]), keep + 1], dim=1)
        tokens = tokens.gather(1, positions[..., None].expand(-1, -1, tokens.shape[-1]))
    blocks = visual.transformer.resblocks
    stage = torch.zeros_like(tokens)
    for number, block in enumerate(blocks, start=1):
        before = tokens
        if number > len(blocks) - STAGE:
            stage = stage + self_attended_values(block, before)
        tokens = block(before)
    values = blocks[-1].attn.out_proj(value_tokens(blocks[-1], before))
    return ImageFeatures(project(model, tokens[:, 0]), project(model, values[:, 1:]), project(model, stage[:, 1:]))


def project(model: open_clip.CLIP, tokens: Tensor) -> Tensor:
    """Take tokens [..., W] to unit-length features [..., D] in the space shared with text."""
    return functional.normalize(model.visual.ln_post(tokens) @ model.visual.proj, dim=-1)


def value_tokens(block: torch.nn.Module, tokens: Tensor) -> Tensor:
    """Return the values [B, L, W] that a block's attention mixes."""
    width = tokens.shape[-1]
    weight, bias = block.attn.in_proj_weight[2 * width :], block.attn.in_proj_bias[2 * width :]
    return functional.linear(block.ln_1(tokens), weight, bias)


def self_attended_values(block: torch.nn.Module, tokens: Tensor) -> Tensor:
    """Return a block's attention output [B, L, W] with values in the place of queries and keys (CLIP Surgery)."""
    heads = value_tokens(block, tokens).unflatten(-1, (block.attn.num_heads, -1)).transpose(1, 2)
    mixed = functional.scaled_dot_product_attention(heads, heads, heads)
    return block.attn.out_proj(mixed.transpose(1, 2).flatten(2))


def encode_texts(model: open_clip.CLIP, tokens: Tensor) -> Tensor:
    """Encode compact tokens [n, 77] to unit-length features [n, D]; the padding after the longest text is cut off."""
    length = int(tokens.argmax(dim=1).max()) + 1
    tokens = tokens[:, :length]
    x = model.token_embedding(tokens) + model.positional_embedding[:length]
    x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:length, :length]))
    pooled = x[torch.arange(len(x)), tokens.argmax(dim=1)]
    return functional.normalize(pooled @ model.text_projection, dim=-1)


def model_card(training: dict[str, object]) -> dict[str, object]:
    """Return what `demo.json` says, before the hash of the weights and the measured numbers."""
    return {
        "name": "demo",
        "note": "Trained by the project on its own procedural images (zsadbench.procedural). Its numbers mean nothing "
        "outside the tour and the regression checks: they say nothing about any method on real images.",
        "license": "Apache-2.0",
        "embed_dim": EMBED_DIM,
        "vision_cfg": VISION,
        "text_cfg": TEXT,
        "quick_gelu": False,
        "input_size": VISION["image_size"],
        "mean": MEAN,
        "std": STD,
        "token_embedding": "token_embedding.weight holds the rows of the CLIP tokens listed in token_ids; others are 0",
        "procedural_version": procedural.VERSION,
        "training": training,
        "versions": {module.__name__: module.__version__ for module in (torch, open_clip, np, cv2)},
    }


def save(model: open_clip.CLIP, token_ids: Tensor, card: dict[str, object], folder: Path) -> None:
    """Write `demo.safetensors` (fp16, used token rows and their CLIP numbers) and `demo.json` into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().half().contiguous() for name, tensor in model.state_dict().items()}
    weights = folder / WEIGHTS
    save_file({**tensors, "token_ids": token_ids}, weights)
    write_card({**card, "sha256": hashlib.sha256(weights.read_bytes()).hexdigest()}, folder)


def write_card(card: dict[str, object], folder: Path) -> None:
    """Write the model card."""
    (folder / CARD).write_text(json.dumps(card, indent=2) + "\n")


def load(folder: Path) -> open_clip.CLIP:
    """Return the saved model over its compact vocabulary, in float32."""
    tensors = load_file(folder / WEIGHTS)
    token_ids = tensors.pop("token_ids")
    model = build(len(token_ids), seed=0)
    model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, strict=True)
    return model.eval()
