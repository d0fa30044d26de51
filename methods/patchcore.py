"""PatchCore: the distance of each patch to the nearest patch of a few normal reference images.

Paper: Roth et al., "Towards Total Recall in Industrial Anomaly Detection", CVPR 2022, arXiv 2106.08265; code read:
amazon-science/patchcore-inspection@8a7748c. The paper reads a WideResNet50; this is its memory bank on the vision
transformer that the other methods share, as the few-shot row of the FiSeCLIP paper's Table 1, whose backbone is not
printed: an approximation, whose numbers are not those of the paper. Not reproduced: random projections (they only speed
up the coreset), the code's pooling over channels, ensembles.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from zsadbench.components import mutual
from zsadbench.datasets import Category
from zsadbench.encoders.base import Encoder
from zsadbench.encoders.features import FeatureRequest
from zsadbench.errors import OptionError, UsageError
from zsadbench.methods import Batch, EncoderConfig, Method, MethodCard, Prediction, register


@dataclass(frozen=True)
class PatchCoreConfig(EncoderConfig):
    """Options; sources are sections of the paper. The encoder fields are those of `musc`, so that passes are shared."""

    encoder: str = "open_clip:ViT-L-14-336/openai"
    size: int | None = 518
    activation: Literal["gelu", "quickgelu"] | None = "gelu"
    pos_embed: Literal["bicubic_antialias", "bicubic", "bilinear"] = "bicubic"
    layers: tuple[int, ...] | None = None  # None: the ends of the second and third of four stages (paper §3.1)
    neighbourhood: int = 3  # side p of the neighbourhood that is averaged (paper §3.1)
    shots: int = 1  # normal reference images (paper §4.5)
    coreset: float = 1.0  # share of the bank that greedy selection keeps; 0.01 to 0.25 with many images (paper §3.2)
    seed: int = 0  # of the first patch of the coreset
    reweight: int = 0  # neighbours b in the image score's weight (paper §3.3, eq. 7); 0: the maximum, as in the code
    align_corners: bool = False  # common.py RescaleSegmentor of the code
    sigma: float = 4.0  # paper §3.3


@register
class PatchCore(Method):
    """`remember` fills the memory bank of the next category."""

    card = MethodCard(
        title="PatchCore (ViT)",
        reference="Roth et al., CVPR 2022, arXiv 2106.08265",
        scope="image",
        code="amazon-science/patchcore-inspection@8a7748c",
        licence="Apache-2.0",
        notes="Approximation: memory bank of a shared vision transformer, where the paper reads a WideResNet50. "
        "Few-shot: references come from the train split.",
        shots=1,
    )
    presets = {
        "1shot": PatchCoreConfig(),
        "2shot": PatchCoreConfig(shots=2),
        "4shot": PatchCoreConfig(shots=4),
    }

    def __init__(self, config: PatchCoreConfig, encoder: Encoder) -> None:
        """Choose the layers. Raises OptionError."""
        super().__init__(config, encoder)
        _check(config)
        self.layers = config.layers or encoder.stages(4)[1:3]
        self.request = FeatureRequest(tokens=self.layers)
        self.shots, self.align_corners, self.sigma = config.shots, config.align_corners, config.sigma
        self.memory: tuple[Category, Tensor] | None = None

    def remember(self, references: Batch) -> None:
        """Keep the patches of the normal reference images of the next category, or a coreset of them."""
        bank = self.patches(references).flatten(0, 1)
        if self.config.coreset < 1:
            bank = bank[greedy_coreset(bank, max(1, round(self.config.coreset * len(bank))), self.config.seed)]
        self.memory = references.category, bank

    def predict(self, batch: Batch) -> Prediction:
        """Score B images of one category: scores [B], maps [B, g, g], distances from 0 to 2."""
        if self.memory is None or self.memory[0] != batch.category:
            raise UsageError(
                f"{self.name or 'patchcore'} knows no references of category {batch.category.name!r}; expected "
                "remember(references) before predict(batch)."
            )
        bank, patches = self.memory[1], self.patches(batch)
        distances, nearest = nearest_rows(patches.flatten(0, 1), bank)
        distances, nearest = distances.view(patches.shape[:2]), nearest.view(patches.shape[:2])
        scores, worst = distances.max(dim=1)
        if self.config.reweight:
            rows = torch.arange(len(batch), device=worst.device)
            scores = scores * weights(patches[rows, worst], bank[nearest[rows, worst]], bank, self.config.reweight)
        return Prediction(scores, distances.unflatten(1, (self.encoder.grid, self.encoder.grid)))

    def patches(self, batch: Batch) -> Tensor:
        """Return neighbourhood means of both layers side by side, of length 1: [B, L, layers * D] (paper §3.1).

        Each layer is scaled to length 1 first: a transformer's tokens grow with depth, and the last would decide alone.
        """
        features = batch.features(self.encoder, self.request)
        parts = [mutual.aggregate(features.tokens(layer), self.config.neighbourhood) for layer in self.layers]
        return torch.cat(parts, dim=2) / math.sqrt(len(parts))


def nearest_rows(patches: Tensor, bank: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distance of unit patches [M, D] to the nearest row of a unit bank [R, D], and which row: [M], [M]."""
    blocks = patches.split(max(1, mutual.BLOCK_ELEMENTS // len(bank)))
    found = [(block @ bank.T).max(dim=1) for block in blocks]
    return mutual.distance(torch.cat([part.values for part in found])), torch.cat([part.indices for part in found])


def greedy_coreset(bank: Tensor, count: int, seed: int) -> Tensor:
    """Choose `count` rows of a bank of unit vectors [R, D] that leave no other row far from them all: [count] int64.

    Greedy k-centre selection: from a random first row on, always the row farthest from those chosen (paper §3.2).
    """
    chosen = [int(torch.randint(len(bank), (1,), generator=torch.Generator().manual_seed(seed)))]
    closest = bank @ bank[chosen[0]]  # cosine of each row with the nearest chosen one
    while len(chosen) < count:
        chosen.append(int(closest.argmin()))
        closest = torch.maximum(closest, bank @ bank[chosen[-1]])
    return torch.tensor(chosen, device=bank.device)


def weights(patches: Tensor, rows: Tensor, bank: Tensor, count: int) -> Tensor:
    """Return the factor of each image score, below 1: patches [B, D], their nearest rows [B, D], bank [R, D] -> [B].

    1 - exp(d(patch, row)) / sum over the `count` rows m of the bank nearest to that row of exp(d(patch, m)): a patch
    whose nearest row is itself rare in the bank counts more (paper §3.3, eq. 7).
    """
    neighbours = bank[(rows @ bank.T).topk(min(count, len(bank)), dim=1).indices]  # [B, count, D], the row included
    around = mutual.distance(torch.einsum("bd,bkd->bk", patches, neighbours))
    own = mutual.distance((patches * rows).sum(dim=1))
    return 1 - own.exp() / around.exp().sum(dim=1)


def _check(config: PatchCoreConfig) -> None:
    if config.shots < 1:
        raise OptionError(f"patchcore.shots is {config.shots}; expected at least 1 normal reference image.")
    if config.neighbourhood < 1 or config.neighbourhood % 2 == 0:
        raise OptionError(f"patchcore.neighbourhood is {config.neighbourhood}; expected an odd side, such as 3.")
    if not 0 < config.coreset <= 1:
        raise OptionError(f"patchcore.coreset is {config.coreset}; expected a share of the bank above 0 and up to 1.")
    if config.reweight < 0 or config.reweight == 1:
        raise OptionError(f"patchcore.reweight is {config.reweight}; expected 0 (off) or at least 2 neighbours.")
