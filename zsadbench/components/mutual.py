"""What methods share that compare the patches of unlabelled images with each other (docs/methods/musc.md)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from zsadbench.components.similarity import unit
from zsadbench.errors import UsageError

BLOCK_ELEMENTS = 2**23  # patch similarities held at once: 32 MiB of float32


def normalise(tokens: Tensor) -> Tensor:
    """Normalise each image as a whole, over patches and width, without affine: [N, L, D] -> [N, L, D]."""
    return functional.layer_norm(tokens, tokens.shape[1:], eps=1e-5)


def aggregate(tokens: Tensor, side: int) -> Tensor:
    """Average each token with its side x side neighbours on the square grid (zeros outside), then scale it to length 1.

    tokens: [N, L, D] -> [N, L, D] (LNAMD, docs/methods/musc.md). The divisor is side ** 2 at the border too; the
    scaling makes it irrelevant.
    """
    result = torch.empty_like(tokens)
    grid = round(tokens.shape[1] ** 0.5)
    for rows, out in zip(torch.split(tokens, 8), torch.split(result, 8), strict=True):
        if side > 1:
            image = rows.reshape(len(rows), grid, grid, -1).permute(0, 3, 1, 2)  # [B, D, g, g], channels last: no copy
            pooled = functional.avg_pool2d(image, side, stride=1, padding=side // 2)
            rows = pooled.permute(0, 2, 3, 1).flatten(1, 2)
        out.copy_(unit(rows))
    return result


def nearest_similarities(tokens: Tensor, masks: Tensor | None = None) -> Tensor:
    """Return the largest cosine of each patch with the patches of each image: unit tokens [N, L, D] -> [N, L, N].

    masks: [N, L] bool marks patches that are no references; an image with all patches marked keeps them all
    (docs/methods/fiseclip.md#choices, A10). Every patch has cosine 1 with its own image. One product of two blocks of
    images serves both directions, so the work is N * (N - 1) / 2 image pairs, and memory is bounded by one block of
    products beside the result.
    """
    count, patches, _ = tokens.shape
    size = max(1, int(BLOCK_ELEMENTS**0.5 / patches))
    blocked = None if masks is None else masks & ~masks.all(dim=1, keepdim=True)
    nearest = tokens.new_empty(count, patches, count)
    for left, right in _pair_blocks(0, count, size):
        products = torch.einsum("ipd,jqd->ipjq", tokens[left], tokens[right])
        nearest[left, :, right] = _without(products, blocked, right).amax(dim=3)
        products = products.permute(2, 3, 0, 1)
        nearest[right, :, left] = _without(products, blocked, left).amax(dim=3)
    nearest.diagonal(dim1=0, dim2=2).fill_(1)
    return nearest


def _pair_blocks(start: int, stop: int, size: int) -> Iterator[tuple[slice, slice]]:
    """Yield blocks of at most size x size images that hold each pair of different images start..stop once."""
    if stop - start < 2:
        return
    middle = (start + stop) // 2
    yield from _pair_blocks(start, middle, size)
    yield from _pair_blocks(middle, stop, size)
    for i in range(start, middle, size):
        for j in range(middle, stop, size):
            yield slice(i, min(i + size, middle)), slice(j, min(j + size, stop))


def _without(products: Tensor, blocked: Tensor | None, references: slice) -> Tensor:
    """Exclude blocked reference patches, the last two dimensions of products [a, L, b, L], from a maximum."""
    return products if blocked is None else products.masked_fill(blocked[references], -torch.inf)


def distance(cosine: Tensor) -> Tensor:
    """Return the Euclidean distance of unit vectors with a cosine: sqrt(2 - 2 cosine), 0 to 2, same shape."""
    return (2 - 2 * cosine).clamp_min(0).sqrt()


def other_images(paths: Sequence[Path], method: str) -> Tensor:
    """Return which images are references of which: [N, N] bool, row the image, column the reference.

    Neither an image nor a copy of it is its reference: a short last batch is filled up from the start of the order,
    which gives a category with few images copies. Raises UsageError where an image has no reference.
    """
    others = torch.tensor([[image != reference for reference in paths] for image in paths])
    if not others.any(dim=1).all():
        raise UsageError(
            f"{method} compares the images of a category with each other; got {len(set(paths))} different image in a "
            "batch, expected at least 2. Give more images, or choose another method."
        )
    return others


def over_others(values: Tensor, others: Tensor, reduce: Literal["mean", "min"] = "mean") -> Tensor:
    """Return the mean or minimum over each image's references: values [N, L, N], others [N, N] bool -> [N, L]."""
    others = others.to(values.device)[:, None]
    if reduce == "min":
        return values.masked_fill(~others, torch.inf).amin(dim=2)
    return (values * others).sum(dim=2) / others.sum(dim=2)
