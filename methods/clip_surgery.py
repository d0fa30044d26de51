"""CLIP Surgery: value-value attention beside the last blocks, and similarities without what all labels have in common.

Paper: Li et al., "A Closer Look at the Explainability of Contrastive Language-Image Pre-training", Pattern Recognition
2025, arXiv 2304.05653; code read: xmed-lab/CLIP_Surgery@d4696d4 (docs/methods/clip_surgery.md). It explains labels,
not anomalies: the default preset re-creates the baseline of the CLIP-AD paper, whose settings are unpublished
(§Baseline of CLIP-AD).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Literal

import torch
from torch import Tensor

from zsadbench.components import prompts
from zsadbench.components.image_scores import ImageScore, fuse, minmax
from zsadbench.components.postprocess import finish
from zsadbench.components.similarity import CategoryText, TextSource, abnormal_logit, text_tower, unit
from zsadbench.encoders.base import Encoder
from zsadbench.encoders.features import FeatureRequest, Features
from zsadbench.errors import OptionError
from zsadbench.methods import Batch, EncoderConfig, Final, Method, MethodCard, Prediction, Scope, register


@dataclass(frozen=True)
class ClipSurgeryConfig(EncoderConfig):
    """Options; sources are sections of docs/methods/clip_surgery.md."""

    encoder: str = "open_clip:ViT-B-16-plus-240/laion400m_e31"  # §Baseline of CLIP-AD
    path: Literal["surgery", "original"] = "surgery"  # where patch tokens come from; original: CLIP as it is
    blocks: int = 6  # the last blocks, which have a surgery path (§Image side)
    start: Literal["residual", "attention"] = "residual"  # with the stream before them, or with nothing
    similarity: Literal["labels", "empty_text", "plain"] = "labels"  # less the labels' mean, less text "", as is (§Map)
    temperature: float = 2.0  # of the class token's label weights (§Map); 1 in CLIP-AD's own method
    minmax_maps: bool = False  # scale each map to 0..1, as the demo does; wrong for pixel metrics across images (§Map)
    text_ensemble: Literal["mean", "pca", "kde", "mean_shift", "dbscan"] = "dbscan"  # parameters as on MVTec AD
    noun: Literal["raw", "readable"] = "raw"  # folder name, or the dataset's noun, as CLIP-AD
    logit_scale: float = 100.0  # of the class token's abnormal probability, as CLIP-AD
    image_score: ImageScore = "minmax_sum"  # class token and map maximum (§Baseline of CLIP-AD)
    align_corners: bool = False  # §Map
    sigma: float = 8.0  # CLIP-AD's; none in the demo (§Smoothing, §Baseline of CLIP-AD)


@register
class ClipSurgery(Method):
    """Two labels, normal and abnormal; the map is what the abnormal label keeps after surgery."""

    card = MethodCard(
        title="CLIP Surgery",
        reference="Li et al., Pattern Recognition 2025, arXiv 2304.05653",
        scope="image",
        image_scope="category",
        code="xmed-lab/CLIP_Surgery@d4696d4",
        notes="Our re-creation of the baseline in the CLIP-AD paper, whose settings are unpublished. Image scores are "
        "min-max scaled over the category; in preset baseline_inductive they are not. Preset direct: patch-text cosine "
        "of plain CLIP.",
    )
    presets = {
        "baseline": ClipSurgeryConfig(),
        # DBSCAN with CLIP-AD's parameters for VisA (eps 1.5) is the plain mean (docs/methods/clip_ad.md#text-vectors).
        "baseline_rvs_visa": ClipSurgeryConfig(text_ensemble="mean"),
        "baseline_inductive": ClipSurgeryConfig(image_score="sum"),
        "original": ClipSurgeryConfig(
            encoder="open_clip:ViT-B-16/openai",  # §Encoder
            size=512,
            pos_embed="bilinear",
            text_ensemble="mean",
            image_score="class_token",
            sigma=0.0,
        ),
        "direct": ClipSurgeryConfig(path="original", similarity="plain"),  # Table 7 of the CLIP-AD paper
    }

    @classmethod
    def reads_text(cls, config: ClipSurgeryConfig) -> bool:
        """Tell that it does, whatever the options."""
        return True

    def __init__(self, config: ClipSurgeryConfig, encoder: Encoder, text: TextSource | None = None) -> None:
        """Choose the blocks; `text` replaces prompts and text tower. Raises WeightsError, OptionError."""
        super().__init__(config, encoder)
        if not 1 <= config.blocks <= encoder.depth:
            raise OptionError(
                f"clip_surgery.blocks is {config.blocks}; expected 1 to {encoder.depth}, the blocks of {encoder.spec}."
            )
        self.text = text or CategoryText(encoder, "clip_ad", noun=config.noun, ensemble=config.text_ensemble)
        if config.similarity == "empty_text":
            self.empty = prompts.template_feature(text_tower(encoder), prompts.get("clip_surgery").templates, "")  # [J]
        self.align_corners, self.sigma = config.align_corners, config.sigma
        self.request = self._request()

    @property
    def image_scope(self) -> Scope:
        """The category where image scores are min-max scaled over it, else the image."""
        return "category" if self.config.image_score == "minmax_sum" else "image"

    def predict(self, batch: Batch) -> Prediction:
        """Return the class token's probability and the map's peak [B, 2], and maps [B, g, g] on the patch grid."""
        text, features = self.text(batch.category), batch.features(self.encoder, self.request)
        maps = self.maps(unit(self.joint_tokens(features)), text)
        peak = finish(maps, self, self.encoder.size).amax(dim=(1, 2))
        abnormal = abnormal_logit(unit(features.embedding), text, self.config.logit_scale).sigmoid()
        return Prediction(torch.stack([abnormal, peak], dim=1), maps)

    def finalise(self, scores: Tensor) -> Final:
        """Fuse probabilities and peaks [N, 2] (docs/methods/clip_ad.md#image-score)."""
        abnormal, peak = scores.unbind(1)
        return Final(fuse(abnormal, peak, self.config.image_score))

    def joint_tokens(self, features: Features) -> Tensor:
        """Return CLIP's class token and the chosen path's patches in the joint space: [B, 1 + L, J] (§Image side)."""
        prefixes, layers = self.encoder.prefixes, sorted(self.request.vv)
        if self.config.path == "original":
            patches = features.tokens(self.encoder.depth)
        else:
            patches = reduce(torch.add, (features.vv(layer)[:, prefixes:] for layer in layers))
            if self.config.start == "residual":
                patches = patches + features.tokens(layers[0] - 1)
        return torch.cat([features.embedding[:, None], self.encoder.project(patches)], dim=1)

    def maps(self, tokens: Tensor, text: Tensor) -> Tensor:
        """Return the abnormal label's similarity with the patches of unit tokens [B, 1 + L, J]: [B, g, g] (§Map)."""
        if self.config.similarity == "labels":
            similarity = label_surgery(tokens, text, self.config.temperature)[..., 1]
        elif self.config.similarity == "empty_text":
            similarity = empty_surgery(tokens, text, self.empty)[..., 1]
        else:
            similarity = tokens @ (text[1] - text[0])
        grid = similarity[:, 1:].unflatten(1, (self.encoder.grid, self.encoder.grid))
        return minmax(grid, dim=(-2, -1)) if self.config.minmax_maps else grid

    def _request(self) -> FeatureRequest:
        depth, first = self.encoder.depth, self.encoder.depth - self.config.blocks + 1
        if self.config.path == "original":
            return FeatureRequest(tokens={depth}, cls=True)
        before = {first - 1} if self.config.start == "residual" else ()
        return FeatureRequest(tokens=before, vv=range(first, depth + 1), cls=True)


def label_surgery(tokens: Tensor, text: Tensor, temperature: float) -> Tensor:
    """Return similarities without what all labels have in common: tokens [B, T, J], text [K, J] -> [B, T, K] (§Map).

    Both of length 1, class token first. Each label is weighted by its probability for the class token relative to the
    mean label; then the mean over labels, the redundant feature, is subtracted.
    """
    cosines = tokens @ text.T
    probabilities = (temperature * cosines[:, 0]).softmax(dim=-1)
    weighted = cosines * (probabilities / probabilities.mean(dim=-1, keepdim=True))[:, None]
    return weighted - weighted.mean(dim=-1, keepdim=True)


def empty_surgery(tokens: Tensor, text: Tensor, empty: Tensor) -> Tensor:
    """Return similarities less that of the empty text: tokens [B, T, J], text [K, J], empty [J] -> [B, T, K] (§Map).

    All of length 1.
    """
    return tokens @ (text - empty).T
