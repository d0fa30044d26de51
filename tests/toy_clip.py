"""A small random CLIP model of open_clip, for tests of encoders."""

from __future__ import annotations

import open_clip
import torch


def make(quick_gelu=False, **vision):
    """Return a random open_clip model of three blocks and its config."""
    config = {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 48, "layers": 3, "head_width": 16} | vision,
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1},
        "quick_gelu": quick_gelu,
    }
    torch.manual_seed(0)
    model = open_clip.CLIP(**config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith("visual") and parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))  # norms and biases that matter
    return model, config
