"""MuSc: a patch is anomalous when the other unlabelled test images of its category have nothing like it.

Paper: Li et al., "MuSc: Zero-Shot Industrial Anomaly Classification and Segmentation with Mutual Scoring of the
Unlabeled Images", ICLR 2024, arXiv 2401.16753; code read: xrli-U/MuSc@b76b93d (docs/methods/musc.md). The preset
`pair` is the "MuSc-2" of the FiSeCLIP paper (§MuSc-2).
Not reproduced: label-aware sub-sets (`divide_num`), fp16 autocast of the encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from zsadbench.components import mutual
from zsadbench.components.image_scores import minmax
from zsadbench.components.postprocess import resize_maps
from zsadbench.components.similarity import unit
from zsadbench.encoders.base import Encoder
from zsadbench.encoders.features import FeatureRequest
from zsadbench.errors import OptionError, UsageError
from zsadbench.methods import Batch, EncoderConfig, Method, MethodCard, Prediction, Scope, register


@dataclass(frozen=True)
class MuscConfig(EncoderConfig):
    """Options; sources are sections of docs/methods/musc.md."""

    encoder: str = "open_clip:ViT-L-14-336/openai"  # §Encoder
    size: int | None = 518  # §Encoder
    activation: Literal["gelu", "quickgelu"] | None = "gelu"  # as published at 518 (§Encoder)
    pos_embed: Literal["bicubic_antialias", "bicubic", "bilinear"] = "bicubic"  # without antialias (§Encoder)
    layers: tuple[int, ...] | None = None  # None: four at equal depth, 6,12,18,24 of 24 blocks (§Image side)
    neighbourhoods: tuple[int, ...] = (1, 3, 5)  # sides r of the patch neighbourhoods that are averaged (§Image side)
    topmin_min: float = 0.0  # of the closest images, those left out; below 1: a fraction of N - 1, else a count (§Map)
    topmin_max: float = 0.3  # the closest images that score a patch; below 1: a fraction of N - 1, else a count (§Map)
    rscin: bool = True  # smooth image scores over similar images (§Image score)
    rscin_windows: tuple[int, ...] = (1, 2, 3)  # numbers of similar images; others for VisA (§Image score)
    group: int | None = None  # images that score each other; None: all of the category, 2: MuSc-2 (§MuSc-2)
    align_corners: bool = True  # §Map
    sigma: float = 0.0  # §Smoothing


@register
class Musc(Method):
    """Walk the images of a category once a layer, and score each patch by its nearest patches in the other images."""

    card = MethodCard(
        title="MuSc",
        reference="Li et al., ICLR 2024, arXiv 2401.16753",
        scope="category",
        code="xrli-U/MuSc@b76b93d",
        notes="Transductive: scores depend on all test images. RsCIN windows were chosen per dataset.",
    )
    presets = {
        "mvtec": MuscConfig(),
        "visa": MuscConfig(rscin_windows=(1, 8, 9)),
        "no_rscin": MuscConfig(rscin=False),
        "pair": MuscConfig(rscin=False, topmin_max=1, group=2),
    }

    def __init__(self, config: MuscConfig, encoder: Encoder) -> None:
        """Choose the layers. Raises OptionError."""
        super().__init__(config, encoder)
        if any(r < 1 or r % 2 == 0 for r in config.neighbourhoods):
            raise OptionError(f"musc.neighbourhoods is {config.neighbourhoods}; expected odd sides, such as 1,3,5.")
        self.layers = config.layers or encoder.stages(4)
        self.request = FeatureRequest(tokens=frozenset(self.layers), cls=True)
        self.align_corners, self.sigma, self.batch_images = config.align_corners, config.sigma, config.group

    @property
    def scope(self) -> Scope:
        """The category, or the batch when images score each other in groups."""
        return "category" if self.config.group is None else "batch"

    def predict(self, batch: Batch) -> Prediction:
        """Score N images that are compared with each other: scores [N], maps [N, g, g]. Raises UsageError for N = 1."""
        if len(set(batch.paths)) < 2:  # a filled-up pair of a category with one image holds that image twice
            raise UsageError(
                f"{self.name or 'musc'} compares the images of a category with each other; {batch.category.name!r} has "
                "one image here, expected at least 2. Give more images, or choose another method."
            )
        # The whole request comes first, so that every image is encoded once, whatever is asked for below.
        embeddings = torch.cat([part.features(self.encoder, self.request).embedding for part in batch.split()])
        grid = self.encoder.grid
        maps = self.patch_scores(batch).float().unflatten(1, (grid, grid))
        # Peaks between patches count: the published score is the maximum at the input size (§Image score).
        full_size = (resize_maps(part, self.encoder.size, self.align_corners) for part in maps.split(16))
        scores = torch.cat([part.amax(dim=(1, 2)) for part in full_size])
        if self.config.rscin:
            scores = rescore(scores, unit(embeddings), self.config.rscin_windows)
        return Prediction(scores, maps)

    def patch_scores(self, batch: Batch) -> Tensor:
        """Return the mutual scores of N images, a mean over layers and neighbourhoods: [N, L] float64.

        Holds the tokens of one layer of all images [N, L, D], their aggregation, and similarities [N, L, N].
        """
        first, last = neighbours(len(batch), self.config.topmin_min, self.config.topmin_max)
        total = torch.zeros(len(batch), self.encoder.grid**2, dtype=torch.float64, device=self.encoder.device)
        for layer in self.layers:
            tokens = self.layer_tokens(batch, layer)
            for side in self.config.neighbourhoods:
                total += mutual_scores(mutual.nearest_similarities(mutual.aggregate(tokens, side)), first, last)
        return total / (len(self.layers) * len(self.config.neighbourhoods))

    def layer_tokens(self, batch: Batch, layer: int) -> Tensor:
        """Collect the tokens of one layer, each image normalised as a whole: [N, L, D] (§Image side)."""
        shape = len(batch), self.encoder.grid**2, self.encoder.width
        tokens = torch.empty(shape, device=self.encoder.device)  # filled in place: never two copies of all images
        start = 0
        for part in batch.split():
            rows = part.features(self.encoder, FeatureRequest(tokens=frozenset([layer]))).tokens(layer)
            tokens[start : start + len(rows)] = mutual.normalise(rows)
            start += len(rows)
        return tokens


def mutual_scores(nearest: Tensor, first: int, last: int) -> Tensor:
    """Return the mean distance of each patch to its first..last closest other images: nearest [N, L, N] -> [N, L].

    Unit vectors with cosine c are sqrt(2 - 2 c) apart (MSM, docs/methods/musc.md, §Map).
    """
    scores = nearest.new_empty(nearest.shape[:2])
    for i, similarity in enumerate(nearest):  # [L, N]
        others = torch.cat([similarity[:, :i], similarity[:, i + 1 :]], dim=1)
        closest = others.topk(last, dim=1).values[:, first:]
        scores[i] = mutual.distance(closest).mean(dim=1)
    return scores


def neighbours(count: int, topmin_min: float, topmin_max: float) -> tuple[int, int]:
    """Return (first, last): closest images first..last of the N - 1 others score a patch. Raises OptionError.

    Values below 1 are fractions of N - 1, truncated; others are counts. At least one image scores (§Map: N <= 4).
    """
    others = count - 1
    first, last = (int(value * others) if value < 1 else int(value) for value in (topmin_min, topmin_max))
    last = min(max(1, last), others)
    if not 0 <= first < last:
        raise OptionError(
            f"musc.topmin_min={topmin_min} and musc.topmin_max={topmin_max} leave no image of {others} others to score "
            "a patch; expected 0 <= topmin_min < topmin_max."
        )
    return first, last


def rescore(scores: Tensor, embeddings: Tensor, windows: Sequence[int]) -> Tensor:
    """Average each image's min-max normalised score with those of its k most similar images, itself included.

    scores: [N], embeddings: unit [N, J] -> [N] float32, a mean over the k in `windows`, weighted by cosine (RsCIN,
    docs/methods/musc.md, §Image score). k larger than N counts as N; equal scores give 0.
    """
    scores, embeddings = minmax(scores.double()), embeddings.double()
    rescored = torch.zeros_like(scores)
    for k in windows:
        weights, images = (embeddings @ embeddings.T).topk(min(k, len(scores)), dim=1)
        rescored += (weights * scores[images]).sum(dim=1) / weights.sum(dim=1)
    return (rescored / len(windows)).float()
