"""Dual-image CLIP: a patch is anomalous when text says so and the image's partner has nothing like it.

An approximation of Zhang et al., "Dual-Image Enhanced CLIP for Zero-Shot Anomaly Detection", arXiv 2405.04782, which
has no code and was not readable beyond abstract, introduction and summary: two images of a category as references of
each other and value-value attention are the paper's; layers, prompts, weights and fusion are ours
(docs/methods/dual_image_clip.md, §Approximation). Not reproduced: its test-time adaptation on synthetic anomalies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from zsadbench.components import mutual
from zsadbench.components.similarity import CategoryText, TextSource, abnormal_logit, unit
from zsadbench.encoders.base import Encoder
from zsadbench.encoders.features import FeatureRequest, Features
from zsadbench.methods import Batch, EncoderConfig, Method, MethodCard, Prediction, register


@dataclass(frozen=True)
class DualImageClipConfig(EncoderConfig):
    """Options; none of the defaults is published. Encoder and text are those of `fiseclip`, whose passes are shared."""

    encoder: str = "open_clip:ViT-L-14-336/openai"
    size: int | None = 518
    activation: Literal["gelu", "quickgelu"] | None = "gelu"
    pos_embed: Literal["bicubic_antialias", "bicubic", "bilinear"] = "bicubic"
    layers: tuple[int, ...] | None = None  # compared with the partner; None: four at equal depth
    temperature: float = 100.0  # of cosines with text: CLIP's logit scale
    noun: Literal["raw", "readable"] = "readable"  # folder name, or the dataset's noun
    align_corners: bool = False
    sigma: float = 0.0


@register
class DualImageClip(Method):
    """Pairs are the batches of a run: the order of images, and so the partner, is drawn from its seed."""

    card = MethodCard(
        title="Dual-image CLIP (approximation)",
        reference="after Zhang et al., arXiv 2405.04782",
        scope="batch",
        notes="Approximation without test-time adaptation: no code exists, and layers, prompts, weights and fusion are "
        "unpublished. Numbers are not comparable with the paper's. Results depend on which images share a batch.",
    )
    presets = {"approximation": DualImageClipConfig()}

    @classmethod
    def reads_text(cls, config: DualImageClipConfig) -> bool:
        """Tell that it does, whatever the options."""
        return True

    def __init__(self, config: DualImageClipConfig, encoder: Encoder, text: TextSource | None = None) -> None:
        """Choose the layers; `text` replaces prompts and text tower. Raises WeightsError."""
        super().__init__(config, encoder)
        self.text = text or CategoryText(encoder, "fiseclip", noun=config.noun)
        self.layers = config.layers or encoder.stages(4)
        self.request = FeatureRequest(tokens=self.layers, vv={encoder.depth}, cls=True)
        self.batch_images = 2
        self.align_corners, self.sigma = config.align_corners, config.sigma

    def predict(self, batch: Batch) -> Prediction:
        """Score a pair of images: scores [2], maps [2, g, g], all from 0 to 1. Raises UsageError for a copied image.

        The map is the mean of both maps, the score that of the class token's probability and the map's maximum.
        """
        others = mutual.other_images(batch.paths, self.name or "dual_image_clip")
        features, text = batch.features(self.encoder, self.request), self.text(batch.category)
        visual = mutual.over_others(self.visual_distances(features), others)
        patches = (self.text_map(features, text) + visual) / 2
        image = abnormal_logit(unit(features.embedding), text, self.config.temperature).sigmoid()
        return Prediction(
            (image + patches.amax(dim=1)) / 2, patches.unflatten(1, (self.encoder.grid, self.encoder.grid))
        )

    def text_map(self, features: Features, text: Tensor) -> Tensor:
        """Return the abnormal probability of the last block's value-value attention; text [2, J] -> [B, L]."""
        patches = self.encoder.project(features.vv(self.encoder.depth)[:, self.encoder.prefixes :])
        return abnormal_logit(unit(patches), text, self.config.temperature).sigmoid()

    def visual_distances(self, features: Features) -> Tensor:
        """Return (1 - largest cosine) / 2 of each patch with each image, a mean over layers: [B, L, B], 0 to 1."""
        nearest = [mutual.nearest_similarities(unit(features.tokens(layer))) for layer in self.layers]
        return (1 - torch.stack(nearest).mean(dim=0)).clamp_min(0) / 2
