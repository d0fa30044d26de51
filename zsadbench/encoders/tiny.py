"""The `tiny` encoder: a random CLIP in open_clip's layout, text tower included, for tests; it needs no file."""

from __future__ import annotations

import hashlib
import json
import math

import open_clip
import torch
from torch import Tensor

from zsadbench.encoders import open_clip as clip_layout
from zsadbench.encoders.base import Encoder, Options

SEED = 0
CONFIG = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 64, "patch_size": 8, "width": 64, "layers": 12, "head_width": 32, "mlp_ratio": 2.0},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 12, "mlp_ratio": 2.0},
    "quick_gelu": False,
}


def load(options: Options) -> Encoder:
    """Return the tiny encoder; the weights are the same on every call."""
    return clip_layout.build(CONFIG, tensors(), spec="tiny", options=options, sha256=sha256())


def sha256() -> str:
    """Return a digest that stands for the weights: that of the config and the seed that they are drawn from."""
    return hashlib.sha256(json.dumps([CONFIG, SEED], sort_keys=True).encode()).hexdigest()


def tensors() -> dict[str, Tensor]:
    """Return the random state dict: unit-variance signals, so that every block matters and no softmax saturates."""
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in open_clip.CLIP(**CONFIG).state_dict().items()}
    generator = torch.Generator().manual_seed(SEED)
    return {name: _draw(name, shape, generator) for name, shape in sorted(shapes.items())}


def _draw(name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Return one random tensor, scaled by its role."""
    if name == "logit_scale":
        return torch.tensor(100.0).log()  # that of every released CLIP
    values = torch.randn(shape, generator=generator)
    if len(shape) == 1 and name.endswith("weight"):  # layer norms
        return 1 + 0.1 * values
    if len(shape) == 1 and name.endswith("bias"):
        return 0.1 * values
    if "embedding" in name:
        return values if len(shape) == 1 else 0.5 * values
    fan_in: int = shape[0] if name.endswith("proj") else values[0].numel()  # projections multiply from the right
    return values / math.sqrt(fan_in)
