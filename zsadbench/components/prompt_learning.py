"""Learnable vectors in the text tower: in place of words of a sentence, and anew before later blocks (deep prompts).

For `TextEncoder.encode_embeddings`. K sentences, T tokens, `n` vectors, W width of the tower.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from zsadbench.encoders.text import Between


def placeholders(count: int, ending: str) -> str:
    """Return a sentence of `count` words of one token each, whose places vectors take, before the ending."""
    return " ".join(["X"] * count + [ending])


def splice(tokens: Tensor, vectors: Tensor, start: int = 1, removed: int | None = None) -> Tensor:
    """Return tokens [K, T, W] with vectors in place of `removed` of them (None: n) from `start` on: [K, T', W].

    vectors: [n, W] for all sentences, or [K, n, W]; they take the type of the tokens. Token 0 is the start of the text.
    T' = T - removed + n: where it differs from T, the caller moves the ends and cuts what the tower cannot hold.
    """
    if removed is None:
        removed = vectors.shape[-2]
    vectors = vectors.to(tokens.dtype).expand(len(tokens), -1, -1)
    return torch.cat([tokens[:, :start], vectors, tokens[:, start + removed :]], dim=1)


def deep_prompts(vectors: Sequence[Tensor], start: int = 1) -> Between:
    """Return the hook for `between` that puts vectors[i], [n, W] or [K, n, W], before block i + 2 (1-based) reads.

    They overwrite what came out at positions `start` on; blocks behind the last vectors read what comes out.
    """

    def between(layer: int, x: Tensor) -> Tensor:
        return splice(x, vectors[layer - 1], start) if layer <= len(vectors) else x

    return between
