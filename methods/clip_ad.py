"""CLIP-AD's SDP: value-value attention in every block, four stages, representative text vectors, no training.

Paper: Chen et al., "CLIP-AD: A Language-Guided Staged Dual-Path Model for Zero-shot Anomaly Detection", arXiv
2311.00453; code read: ByChelsea/CLIP-AD@f004973 (specs/methods/clip_ad_sdp.md, rvs.md). Where paper and code disagree,
the code is followed (§10, §11). Not reproduced: the ResNet encoders of its Table 8, fp16 autocast.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from zsadbench.encoders.base import Encoder
from zsadbench.encoders.features import FeatureRequest, Features
from zsadbench.errors import OptionError
from zsadbench.image_scores import Evidence, ImageScore, crop_abnormal, fuse
from zsadbench.methods import Batch, EncoderConfig, Method, MethodCard, Prediction, Scope, register
from zsadbench.postprocess import finish
from zsadbench.similarity import CategoryText, TextSource, abnormal_logit, unit


@dataclass(frozen=True)
class ClipAdConfig(EncoderConfig):
    """Options; sources are sections of specs/methods/clip_ad_sdp.md, and of rvs.md where it says so."""

    encoder: str = "open_clip:ViT-B-16-plus-240/laion400m_e31"  # §2
    prompts: Literal["clip_ad", "clip_ad_head_ct", "clip_ad_brain_mri", "clip_ad_cvc_clinicdb"] = "clip_ad"  # §3
    noun: Literal["raw", "readable"] = "raw"  # folder name, or the dataset's noun (§3)
    rvs: Literal["mean", "pca", "kde", "mean_shift", "dbscan"] = "dbscan"  # how sentences become one vector (rvs.md §3)
    kde_bandwidth: float = 0.3  # rvs.md §3
    mean_shift_bandwidth: float = 2.0  # rvs.md §3: always the plain mean
    dbscan_eps: float = 0.5  # rvs.md §3; 1.5 on VisA
    dbscan_min_samples: int = 15  # rvs.md §3; 25 on VisA
    rvs_half: bool = False  # round the vectors through float16 as the code does for kde, mean_shift, dbscan (rvs.md §4)
    stages: int = 4  # parts of equal depth, each with a surgery path of its own (§4)
    used_stages: tuple[int, ...] | None = None  # those that the map sums, 1-based; None: all. Table 5's "blocks" (§12)
    official_aliasing: bool = True  # a stage's class token has seen the next block's attention, as in the code (§4)
    cls_temperature: float = 1.0  # of the class token's weights for normal and abnormal (§5)
    logit_scale: float = 100.0  # of the class token's abnormal probability (§6)
    image_score: ImageScore = "minmax_sum"  # code; paper's text; without map (§6)
    multi_crop: bool = False  # also average the class token over ten crops (supplement D; winclip.md §10)
    align_corners: bool = False  # §5
    sigma: float = 8.0  # the code's; the paper says there is none (§7)


@register
class ClipAd(Method):
    """SDP: the stages' surgery maps are summed; the image score adds their maximum to CLIP's own probability."""

    card = MethodCard(
        title="CLIP-AD (SDP)",
        reference="Chen et al., arXiv 2311.00453",
        scope="category",
        code="ByChelsea/CLIP-AD@f004973",
        notes="The image score is min-max normalised over the category (transductive), as in the code; "
        "image_score=sum is the paper's. Multi-crop enlarges the preprocessed image instead of the file's.",
    )
    presets = {
        "sdp": ClipAdConfig(),
        "sdp_rvs_visa": ClipAdConfig(dbscan_eps=1.5, dbscan_min_samples=25),  # the code's parameters for VisA
        "sdp_headct": ClipAdConfig(prompts="clip_ad_head_ct", noun="readable"),
        "sdp_brainmri": ClipAdConfig(prompts="clip_ad_brain_mri", noun="readable"),
        "sdp_clinicdb": ClipAdConfig(prompts="clip_ad_cvc_clinicdb", noun="readable"),
        "sdp_isic": ClipAdConfig(noun="readable"),
        "sdp_multi_crop": ClipAdConfig(multi_crop=True, image_score="class_token"),  # supplement D
    }

    def __init__(self, config: ClipAdConfig, encoder: Encoder, text: TextSource | None = None) -> None:
        """Divide the blocks into stages; `text` replaces prompts and text tower. Raises WeightsError, OptionError."""
        super().__init__(config, encoder)
        self.text = text or CategoryText(
            encoder, config.prompts, noun=config.noun, ensemble=config.rvs, **rvs_parameters(config)
        )
        self.align_corners, self.sigma = config.align_corners, config.sigma
        self.stages = _stages(config, encoder)
        self.request = self._request()

    @property
    def scope(self) -> Scope:
        """The category where image scores are min-max normalised over it, else the image."""
        return "category" if self.config.image_score == "minmax_sum" else "image"

    def predict(self, batch: Batch) -> Prediction:
        """Score images of one category: scores [B], maps [B, g, g] on the patch grid."""
        text = self.text(batch.category)
        found = Evidence.collect(self.evidence(part, text) for part in batch.split())
        return Prediction(fuse(found.abnormal, found.peak, self.config.image_score), found.maps)

    def evidence(self, batch: Batch, text: Tensor) -> Evidence:
        """Return what scores are made of; text: unit rows [2, J]."""
        features = batch.features(self.encoder, self.request)
        maps = self.maps(features, text)
        peak = finish(maps, self, self.encoder.size).amax(dim=(1, 2))
        abnormal = abnormal_logit(unit(features.embedding), text, self.config.logit_scale).sigmoid()
        if self.config.multi_crop:
            crops = crop_abnormal(self.encoder, batch.images, text, self.config.logit_scale)
            abnormal = (abnormal + crops) / 2
        return Evidence(abnormal, peak, maps)

    def maps(self, features: Features, text: Tensor) -> Tensor:
        """Return the summed surgery maps of the used stages: [B, g, g] (§5)."""
        tokens = (unit(self.stage_tokens(features, stage)) for stage in self.stages)
        summed = sum(surgery(stage, text, self.config.cls_temperature) for stage in tokens)
        return summed[:, 1:].unflatten(1, (self.encoder.grid, self.encoder.grid))

    def stage_tokens(self, features: Features, stage: range) -> Tensor:
        """Return CLIP's class token and a stage's surgery patches in the joint space: [B, 1 + L, J] (§4)."""
        patches = self.encoder.project(sum(features.vv(layer)[:, self.encoder.prefixes :] for layer in stage))
        return torch.cat([self._class_token(features, stage[-1])[:, None], patches], dim=1)

    def _class_token(self, features: Features, layer: int) -> Tensor:
        """Return the class token that goes with the stage that ends at a layer, in the joint space: [B, J]."""
        if layer == self.encoder.depth:
            return features.embedding
        aliased = self.config.official_aliasing
        return self.encoder.project(features.attended(layer + 1)[:, 0] if aliased else features.prefix(layer)[:, 0])

    def _request(self) -> FeatureRequest:
        ends = {stage[-1] for stage in self.stages} - {self.encoder.depth}
        aliased = ends if self.config.official_aliasing else set()
        return FeatureRequest(
            vv={layer for stage in self.stages for layer in stage},
            attended={layer + 1 for layer in aliased},
            tokens=ends - aliased,
            cls=True,
        )


def rvs_parameters(config: ClipAdConfig) -> dict[str, Any]:
    """Return the arguments of `vector_selection.select` that belong to the options' rule."""
    by_rule: dict[str, dict[str, Any]] = {
        "kde": {"bandwidth": config.kde_bandwidth},
        "mean_shift": {"bandwidth": config.mean_shift_bandwidth},
        "dbscan": {"eps": config.dbscan_eps, "min_samples": config.dbscan_min_samples},
    }
    return {"half": config.rvs_half, **by_rule.get(config.rvs, {})}


def surgery(tokens: Tensor, text: Tensor, temperature: float) -> Tensor:
    """Return p_abnormal cos(abnormal) - p_normal cos(normal) of unit tokens [B, T, J]: [B, T], any sign (§5).

    text: unit rows [2, J] [normal, abnormal]; p is the softmax of temperature * cosine of the class token, which comes
    first. With two labels this is CLIP Surgery's removal of redundant features.
    """
    cosines = tokens @ text.T
    weights = (temperature * cosines[:, 0]).softmax(dim=-1)
    normal, abnormal = (cosines * weights[:, None]).unbind(dim=-1)
    return abnormal - normal


def _stages(config: ClipAdConfig, encoder: Encoder) -> list[range]:
    """Return the blocks of each used stage, 1-based."""
    ends = encoder.stages(config.stages)
    used = config.used_stages or tuple(range(1, config.stages + 1))
    if not set(used) <= set(range(1, config.stages + 1)) or len(set(used)) < len(used):
        raise OptionError(
            f"clip_ad.used_stages is {used}; expected different numbers of 1 to {config.stages}, the number of stages."
        )
    return [range(ends[stage - 1] - ends[0] + 1, ends[stage - 1] + 1) for stage in used]
