"""The `demo` encoder: a small CLIP that the project trained on procedural images; it ships with the package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zsadbench.encoders import open_clip as clip_layout
from zsadbench.encoders import weights as weight_files
from zsadbench.encoders.base import Encoder, Options
from zsadbench.errors import WeightsError
from zsadbench.support import files

WEIGHTS = Path(__file__).with_name("demo.safetensors")
CARD = Path(__file__).with_name("demo.json")  # open_clip config, mean, std, and the digest of the weights


def load(options: Options) -> Encoder:
    """Return the demo encoder at the given options."""
    card = _card()
    found = files.sha256(WEIGHTS)
    if found != card["sha256"]:
        raise WeightsError(f"{WEIGHTS} has SHA-256 {found}, expected {card['sha256']}. Install zsadbench again.")
    config = {name: card[name] for name in ("embed_dim", "vision_cfg", "text_cfg", "quick_gelu")}
    mean, std = tuple(card["mean"]), tuple(card["std"])
    tensors = _expand(weight_files.read(WEIGHTS), config["text_cfg"]["vocab_size"])
    return clip_layout.build(config, tensors, spec="demo", options=options, sha256=found, mean=mean, std=std)


def check(options: Options) -> None:
    """Raise UsageError for an image side that the encoder's patches do not tile."""
    clip_layout.check_options(_card(), "demo", options)


def sha256() -> str:
    """Return the digest of the demo weights."""
    return str(_card()["sha256"])


def _card() -> dict[str, Any]:
    if not (CARD.is_file() and WEIGHTS.is_file()):
        raise WeightsError(f"The demo encoder's files {CARD} and {WEIGHTS.name} are missing. Install zsadbench again.")
    return dict(json.loads(CARD.read_text()))


def _expand(tensors: dict[str, Tensor], vocabulary: int) -> dict[str, Tensor]:
    """Return the state dict with all rows of the token embedding; rows of words outside the training text are zero."""
    ids, rows = tensors.pop("token_ids").long(), tensors["token_embedding.weight"].float()
    table = torch.zeros(vocabulary, rows.shape[1])
    table[ids] = rows
    return {**tensors, "token_embedding.weight": table}
