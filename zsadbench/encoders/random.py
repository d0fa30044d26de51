"""Encoders of a SPEC's real architecture with seeded random weights: what they cost does not depend on the values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zsadbench.encoders import RANDOM

if TYPE_CHECKING:
    from zsadbench.encoders.base import Encoder, Options
    from zsadbench.encoders.text import TextEncoder

SEED = 0


def load(library: str, name: str, *, spec: str, options: Options) -> Encoder:
    """Return the encoder of an open_clip or timm name without any file; see `zsadbench.encoders.load`."""
    if library == "timm":
        from zsadbench.encoders import timm

        config = timm.config(name)
        tensors = draw(timm.shapes(config, spec))
        return timm.from_config(config, tensors, spec=spec, sha256=RANDOM, **vars(options))
    from zsadbench.encoders import open_clip

    model, tag = name.split("/")
    config, _ = open_clip.trained_config(model, tag, spec)
    tensors = draw(open_clip.shapes(config))
    return open_clip.from_config(config, tensors, spec=spec, sha256=RANDOM, **vars(options))


def load_text(name: str, *, spec: str, precision: str, device: str) -> TextEncoder:
    """Return the text tower of an open_clip name without any file; see `zsadbench.encoders.load_text`."""
    from zsadbench.encoders import open_clip
    from zsadbench.encoders.text import is_text

    model, tag = name.split("/")
    config, _ = open_clip.trained_config(model, tag, spec)
    text = {key: shape for key, shape in open_clip.shapes(config).items() if is_text(key)}
    return open_clip.text_from_config(config, draw(text), precision=precision, device=device)


def draw(shapes: Mapping[str, torch.Size], seed: int = SEED) -> dict[str, Tensor]:
    """Return a random state dict: unit-variance signals, so that every block matters and no softmax saturates."""
    generator = torch.Generator().manual_seed(seed)
    return {name: _draw(name, shape, generator) for name, shape in sorted(shapes.items())}


def _draw(name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Return one random tensor, scaled by its role."""
    if name == "logit_scale":
        return torch.tensor(100.0).log()  # that of every released CLIP
    if not shape:
        return torch.zeros(())  # the counter of a batch norm
    values = torch.randn(shape, generator=generator)
    if name.endswith("running_var"):
        return 1 + 0.1 * values.abs()
    if len(shape) == 1 and name.endswith("weight"):  # layer norms
        return 1 + 0.1 * values
    if len(shape) == 1 and name.endswith("bias"):
        return 0.1 * values
    if "embedding" in name:
        return values if len(shape) == 1 else 0.5 * values
    fan_in: int = shape[0] if name.endswith("proj") else values[0].numel()  # projections multiply from the right
    return values / math.sqrt(fan_in)
