"""Hierarchical group merging: learnable group tokens claim patches block by block, and are merged in between.

The operators of Dual-Anchor (docs/methods/dual_anchor.md, §Merge blocks), which know neither text nor anomalies: a
grouping block in the form of GroupViT (Xu et al., CVPR 2022) and the bipartite matching of ToMe (Bolya et al., ICLR
2023), both re-implemented from their formulas. B images, M patches, n groups, C channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from zsadbench.components.similarity import unit
from zsadbench.errors import UsageError

ASSIGN_EPS = 1.0  # added to a group's total claim before it is divided by it (GroupViT; §Merge blocks)


class Merged(NamedTuple):
    """What the blocks make of an image."""

    groups: Tensor  # [B, n, C], the updated group tokens of the last block
    patches: Tensor  # [B, M, C], patches of the last block with their groups' content written back
    assignments: tuple[Tensor, ...]  # one [B, M, n_h] a block: how much each group claims of a patch, rows summing to 1


class CrossAttention(nn.Module):
    """Step (a), initialisation: patches read from the group tokens, F + MHA(LN(F), LN(G), LN(G))."""

    def __init__(self, width: int, heads: int) -> None:
        """`heads` must divide the width C."""
        super().__init__()
        self.heads = heads
        self.norm_patch, self.norm_group = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, patches: Tensor, groups: Tensor) -> Tensor:
        """Return patches [B, M, C] that have attended to groups [B, n, C]."""
        normed = self.norm_group(groups)
        queries, keys, values = self.q(self.norm_patch(patches)), self.k(normed), self.v(normed)
        split = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (queries, keys, values))
        mixed = functional.scaled_dot_product_attention(*split)
        read: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return patches + read


class Assignment(nn.Module):
    """Step (b): a Gumbel-softmax over groups assigns each patch, and groups add up what they claimed."""

    def __init__(self, width: int, tau: float, hard: bool) -> None:
        """`tau` is the temperature; `hard` assigns one-hot, with the gradient of the soft assignment."""
        super().__init__()
        self.tau, self.hard = tau, hard
        self.norm_patch, self.norm_group = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.k, self.v = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, patches: Tensor, groups: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the assignment [B, M, n] and the updated groups [B, n, C].

        noise: [B, M, n] Gumbel noise of a training step, added before the division by tau (§Merge blocks).
        """
        normed = self.norm_patch(patches)
        # Products are ordered so that C x C matrices meet the few groups, never the many patches.
        keys = self.k(self.norm_group(groups)) @ self.q.weight
        logits = normed @ keys.mT * normed.shape[2] ** -0.5
        assignment = self._harden(torch.softmax((logits if noise is None else logits + noise) / self.tau, dim=2))
        claims = assignment.mT / (assignment.sum(dim=1) + ASSIGN_EPS).unsqueeze(2)
        return assignment, groups + self.out(self.v(claims @ normed))

    def _harden(self, soft: Tensor) -> Tensor:
        if not self.hard:
            return soft
        one_hot = functional.one_hot(soft.argmax(dim=2), soft.shape[2]).to(soft.dtype)
        return one_hot + (soft - soft.detach())  # the bracket is zero, and carries the gradient


class Update(nn.Module):
    """Step (d): the last block's groups are written back to the patches they claimed."""

    def __init__(self, width: int, residual: bool) -> None:
        """Without `residual` only the written part is returned."""
        super().__init__()
        self.residual = residual
        self.v, self.out = nn.Linear(width, width, bias=False), nn.Linear(width, width)

    def forward(self, patches: Tensor, groups: Tensor, assignment: Tensor) -> Tensor:
        """Return patches [B, M, C] from patches, updated groups [B, n, C] and their assignment [B, M, n]."""
        written: Tensor = self.out(assignment @ self.v(groups))
        return patches + written if self.residual else written


class MergeBlock(nn.Module):
    """One block: initialisation (a) unless `init` is off, assignment (b), and in the last block the update (d)."""

    def __init__(
        self, width: int, heads: int, *, tau: float, hard: bool, init: bool, update: bool, residual: bool
    ) -> None:
        """Make the steps that the block has."""
        super().__init__()
        self.init = CrossAttention(width, heads) if init else None
        self.assign = Assignment(width, tau, hard)
        self.update = Update(width, residual) if update else None

    def forward(self, patches: Tensor, groups: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return patches [B, M, C], updated groups [B, n, C] and the assignment [B, M, n]."""
        if self.init is not None:
            patches = self.init(patches, groups)
        assignment, groups = self.assign(patches, groups, noise)
        if self.update is not None:
            patches = self.update(patches, groups, assignment)
        return patches, groups, assignment


def run_blocks(
    blocks: Iterable[nn.Module],
    sizes: Sequence[int],
    bank: Tensor,
    features: Sequence[Tensor],
    noise: Sequence[Tensor] | None = None,
) -> Merged:
    """Run the blocks over one feature layer each, merging groups in between.

    sizes: n_h groups that enter block h; bank: [1, n_1, C]; features: [B, M, C] a block, each block reads its own
    layer afresh (§Merge blocks); noise: [B, M, n_h] a block, None outside training.
    """
    groups = bank.expand(len(features[0]), -1, -1)
    patches, assignments = features[0], []
    for h, (block, layer) in enumerate(zip(blocks, features, strict=True)):
        groups = merge_to(groups, sizes[h])
        patches, groups, assignment = block(layer, groups, None if noise is None else noise[h])
        assignments.append(assignment)
    return Merged(groups, patches, tuple(assignments))


def merge_to(groups: Tensor, size: int) -> Tensor:
    """Merge group tokens [B, n, C] by halves until `size` are left (§Merge blocks): [B, size, C]."""
    while groups.shape[1] > size:
        groups = merge_half(groups)
    return groups


def merge_half(groups: Tensor) -> Tensor:
    """Step (c): every even token joins its most similar odd one: [B, n, C] -> [B, n / 2, C], in the order of the odd.

    A target and all its sources are averaged, a target without source stays. The choice has no gradient.
    """
    sources, targets = groups[:, 0::2], groups[:, 1::2]
    joins = functional.one_hot(merge_choice(groups), targets.shape[1]).to(groups.dtype)  # [B, sources, targets]
    members = 1 + joins.sum(dim=1).unsqueeze(2)
    return (targets + joins.mT @ sources) / members  # a product, because scattered sums are not deterministic on GPUs


def merge_choice(groups: Tensor) -> Tensor:
    """Return the target of each source by largest cosine, the first of equal ones: [B, n, C] -> [B, n / 2] int64."""
    with torch.no_grad():
        return (unit(groups[:, 0::2]) @ unit(groups[:, 1::2]).mT).argmax(dim=2)


def gumbel_noise(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Draw -log(-log U) with U uniform in (0, 1), on the generator's device: `shape`, float32."""
    # An exponential variable is -log U, drawn without U = 0; its own zero would make an infinity.
    exponential = torch.empty(*shape, device=generator.device).exponential_(generator=generator)
    return -exponential.clamp_min(torch.finfo(torch.float32).tiny).log()


def check_sizes(sizes: Sequence[int], blocks: int) -> None:
    """Raise UsageError unless there is one group count a block, each a power of two times the next, the last one 2."""
    factors = [(before // after, before % after) for before, after in pairwise(sizes) if after > 0]
    halved = all(rest == 0 and factor > 0 and factor & (factor - 1) == 0 for factor, rest in factors)
    if len(sizes) != blocks or len(factors) != blocks - 1 or not halved or sizes[-1] != 2:
        raise UsageError(
            f"Option groups is {','.join(map(str, sizes))}; expected {blocks} counts, one a layer, each the next one "
            "times a power of two and the last one 2, e.g. 16,8,4,2. Change groups or layers."
        )
