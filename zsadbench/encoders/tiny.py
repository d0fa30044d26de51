"""The `tiny` encoder: a random CLIP in open_clip's layout, text tower included, for tests; it needs no file."""

from __future__ import annotations

import hashlib
import json

from torch import Tensor

from zsadbench.encoders import open_clip as clip_layout
from zsadbench.encoders import random
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


def check(options: Options) -> None:
    """Raise UsageError for an image side that the encoder's patches do not tile."""
    clip_layout.check_options(CONFIG, "tiny", options)


def sha256() -> str:
    """Return a digest that stands for the weights: that of the config and the seed that they are drawn from."""
    return hashlib.sha256(json.dumps([CONFIG, SEED], sort_keys=True).encode()).hexdigest()


def tensors() -> dict[str, Tensor]:
    """Return the random state dict."""
    return random.draw(clip_layout.shapes(CONFIG), SEED)
