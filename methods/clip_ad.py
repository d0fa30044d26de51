"""CLIP-AD: SDP, a value-value attention path in four stages, needs no training; SDP+ adds trained linear layers.

Paper: Chen et al., "CLIP-AD: A Language-Guided Staged Dual-Path Model for Zero-shot Anomaly Detection", arXiv
2311.00453; code read: ByChelsea/CLIP-AD@f004973 (docs/methods/clip_ad.md). Where paper and code disagree, the code is
followed (§Paper and code). Not reproduced: the ResNet encoders of its Table 8, fp16 autocast, and for SDP+ the choice
of the epoch by the score on the target (§Training), which is leakage: the last epoch is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, Literal

import torch
from torch import Tensor

from zsadbench.components.image_scores import ImageScore, crop_abnormal, fuse
from zsadbench.components.postprocess import finish, resize_maps
from zsadbench.components.similarity import CategoryText, TextSource, abnormal_logit, joint_width, unit
from zsadbench.components.stage_layers import StageLayers, stage_losses, stage_map
from zsadbench.encoders.base import Encoder
from zsadbench.encoders.features import FeatureRequest, Features
from zsadbench.errors import OptionError
from zsadbench.methods import (
    Batch,
    EncoderConfig,
    Final,
    MethodCard,
    Prediction,
    Scope,
    Stage,
    TrainableMethod,
    TrainingBatch,
    TrainRecipe,
    register,
)

CHECKPOINT_KEY = "linear_layers"  # where the official .pth keeps the layers (§Checkpoints)


@dataclass(frozen=True)
class ClipAdConfig(EncoderConfig):
    """Options; sources are sections of docs/methods/clip_ad.md."""

    encoder: str = "open_clip:ViT-B-16-plus-240/laion400m_e31"  # §Encoder
    prompts: Literal["clip_ad", "clip_ad_head_ct", "clip_ad_brain_mri", "clip_ad_cvc_clinicdb"] = "clip_ad"  # §Text
    noun: Literal["raw", "readable"] = "raw"  # folder name, or the dataset's noun (§Text)
    rvs: Literal["mean", "pca", "kde", "mean_shift", "dbscan"] = "dbscan"  # of sentences (§Text vectors)
    kde_bandwidth: float = 0.3  # §Text vectors
    mean_shift_bandwidth: float = 2.0  # §Text vectors: always the plain mean
    dbscan_eps: float = 0.5  # §Text vectors; 1.5 on VisA
    dbscan_min_samples: int = 15  # §Text vectors; 25 on VisA
    rvs_half: bool = False  # round through float16, as the code does for all but mean and pca (§Text vectors)
    stages: int = 4  # parts of equal depth, each with a surgery path of its own (§Image side)
    used_stages: tuple[int, ...] | None = None  # those that the map sums, 1-based; None: all. Table 5's "blocks"
    official_aliasing: bool = True  # a stage's class token has seen the next block's attention (§Image side)
    cls_temperature: float = 1.0  # of the class token's weights for normal and abnormal (§Map)
    logit_scale: float = 100.0  # of the class token's abnormal probability (§Image score)
    image_score: ImageScore = "minmax_sum"  # code; paper's text; without map (§Image score)
    multi_crop: bool = False  # also average the class token over ten crops (supplement D)
    align_corners: bool = False  # §Map
    sigma: float = 8.0  # the code's; the paper says there is none (§Smoothing)


@dataclass(frozen=True)
class ClipAdPlusConfig(ClipAdConfig):
    """SDP+'s options: those of SDP, and of its trained layers. They are trained with the raw nouns' plain prompts."""

    mapping_layers: int = 1  # linear layers of a stage's mapping, Table 6; the widths of more than one are inferred
    mapping_relu: bool = False  # ReLU between them, Table 6
    mapping_align_corners: bool = True  # §Map
    train_dbscan_eps: float = 0.5  # dbscan_eps for the classes of the training set (§Training)
    train_dbscan_min_samples: int = 15  # likewise
    lr_factor: float = 1.0  # of the recipe's learning rate; 0.1 in the rows of Table 6 that have a star
    trained_on: str = "visa"  # dataset of the checkpoint; official files do not say it
    recipe: TrainRecipe = TrainRecipe((Stage(epochs=5, lr=1e-4),), batch_size=8, shuffle=False)  # §Training


VISA = ClipAdPlusConfig(train_dbscan_eps=1.5, train_dbscan_min_samples=25)  # as in the code (§Text vectors)
MVTEC = ClipAdPlusConfig(trained_on="mvtec")


@register
class ClipAd(TrainableMethod):
    """SDP sums the stages' surgery maps, SDP+ adds the maps of trained layers on the tower's own patch tokens.

    The image score adds the map's maximum to CLIP's own probability. Stages are trained independently of each other,
    so one checkpoint serves every choice of `used_stages`.
    """

    card = MethodCard(
        title="CLIP-AD",
        reference="Chen et al., arXiv 2311.00453",
        scope="image",
        image_scope="category",
        code="ByChelsea/CLIP-AD@f004973",
        notes="The image score is min-max scaled over the category, as in the code; image_score=sum, of the presets "
        "*_inductive, is the paper's. Multi-crop enlarges the preprocessed image instead of the file's. SDP+ uses "
        "the last epoch; the paper chose one by the score on the target. Presets of SDP+ for one "
        "dataset, such as sdp_plus_visa_headct, share the checkpoint of their training set.",
    )
    presets = {
        "sdp": ClipAdConfig(),
        "sdp_rvs_visa": ClipAdConfig(dbscan_eps=1.5, dbscan_min_samples=25),  # the code's parameters for VisA
        "sdp_headct": ClipAdConfig(prompts="clip_ad_head_ct", noun="readable"),
        "sdp_brainmri": ClipAdConfig(prompts="clip_ad_brain_mri", noun="readable"),
        "sdp_clinicdb": ClipAdConfig(prompts="clip_ad_cvc_clinicdb", noun="readable"),
        "sdp_isic": ClipAdConfig(noun="readable"),
        "sdp_inductive": ClipAdConfig(image_score="sum"),  # the paper's text (§Image score)
        "sdp_multi_crop": ClipAdConfig(multi_crop=True, image_score="class_token"),  # supplement D
        "sdp_plus_visa": VISA,
        "sdp_plus_mvtec": MVTEC,
        "sdp_plus_demo": ClipAdPlusConfig(
            rvs="mean",  # what dbscan gives with the demo encoder, whose sentences are one cluster
            sigma=2.0,  # pixels of a small map
            trained_on="demo.train",
            recipe=TrainRecipe((Stage(epochs=3, lr=1e-2),), batch_size=8),
        ),
        "sdp_plus_inductive_visa": replace(VISA, image_score="sum"),
        "sdp_plus_inductive_mvtec": replace(MVTEC, image_score="sum"),
        "sdp_plus_mvtec_rvs_visa": replace(MVTEC, dbscan_eps=1.5, dbscan_min_samples=25, sigma=2.0),  # §Smoothing
        "sdp_plus_visa_headct": replace(VISA, prompts="clip_ad_head_ct", noun="readable"),
        "sdp_plus_visa_brainmri": replace(VISA, prompts="clip_ad_brain_mri", noun="readable"),
        "sdp_plus_mvtec_clinicdb": replace(MVTEC, prompts="clip_ad_cvc_clinicdb", noun="readable"),
        "sdp_plus_mvtec_isic": replace(MVTEC, noun="readable"),
    }
    free_options = frozenset(
        {
            *("prompts", "noun", "dbscan_eps", "dbscan_min_samples", "used_stages", "cls_temperature", "image_score"),
            *("multi_crop", "align_corners", "sigma"),
        }
    )

    @classmethod
    def reads_text(cls, config: ClipAdConfig) -> bool:
        """Tell that it does, whatever the options."""
        return True

    def __init__(self, config: ClipAdConfig, encoder: Encoder, text: TextSource | None = None) -> None:
        """Divide the blocks into stages; `text` replaces prompts and text tower. Raises WeightsError, OptionError."""
        super().__init__(config, encoder)
        self.text = text or _category_text(config, encoder)
        self.align_corners, self.sigma = config.align_corners, config.sigma
        self.stages = _stages(config, encoder)
        self.used = _used(config)
        self.request = self._request()
        self.plus = isinstance(config, ClipAdPlusConfig)
        if isinstance(config, ClipAdPlusConfig):
            self.training_text = text or _category_text(_training_options(config), encoder)
            self.training_request = self._kept(range(config.stages))
            self.request |= self._kept(self.used)
        else:
            self.trained_on = frozenset()

    @property
    def image_scope(self) -> Scope:
        """The category where image scores are min-max scaled over it, else the image."""
        return "category" if self.config.image_score == "minmax_sum" else "image"

    @property
    def recipe(self) -> TrainRecipe:
        """The recipe of the options with their factor of the learning rate."""
        recipe: TrainRecipe = self.config.recipe
        stages = (replace(stage, lr=stage.lr * self.config.lr_factor) for stage in recipe.stages)
        return replace(recipe, stages=tuple(stages))

    def new_module(self) -> StageLayers:
        """Return SDP+'s layers of every stage, used or not; SDP has none."""
        config, widths = self.config, (self.encoder.width, joint_width(self.encoder))
        if not self.plus:
            return StageLayers(0, *widths)
        return StageLayers(config.stages, *widths, config.mapping_layers, config.mapping_relu)

    def draw(self, module: StageLayers, generator: torch.Generator) -> None:
        """Draw layers as torch's `Linear` does by default."""
        module.draw(generator)

    def own_names(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Take the layers alone, or from below the official `linear_layers`."""
        prefix = f"{CHECKPOINT_KEY}."
        official = {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
        return official or tensors

    def predict(self, batch: Batch) -> Prediction:
        """Return the class token's probability and the map's peak [B, 2]; maps [B, g, g], of SDP+ [B, S, S]."""
        text = self.text(batch.category)
        features = batch.features(self.encoder, self.request)
        maps = self.maps(features, text)
        peak = finish(maps, self, self.encoder.size).amax(dim=(1, 2))
        abnormal = abnormal_logit(unit(features.embedding), text, self.config.logit_scale).sigmoid()
        if self.config.multi_crop:
            crops = crop_abnormal(self.encoder, batch.images, text, self.config.logit_scale)
            abnormal = (abnormal + crops) / 2
        return Prediction(torch.stack([abnormal, peak], dim=1), maps)

    def finalise(self, scores: Tensor) -> Final:
        """Fuse probabilities and peaks [N, 2] (§Image score)."""
        abnormal, peak = scores.unbind(1)
        return Final(fuse(abnormal, peak, self.config.image_score))

    def loss(self, batch: TrainingBatch, labels: Tensor, masks: Tensor, stage: str = "") -> dict[str, Tensor]:
        """Return focal and Dice loss of every stage's layers (§Training)."""
        features = batch.features(self.encoder, self.training_request)
        text = torch.stack([self.training_text(category) for category in batch.categories])
        return stage_losses([self.mapped(features, i, text) for i in range(len(self.stages))], masks)

    def maps(self, features: Features, text: Tensor) -> Tensor:
        """Return the sum of the used stages' maps: SDP's [B, g, g], SDP+'s [B, S, S] (§Map)."""
        surgery_maps = self.surgery_maps(features, text)
        if not self.plus:
            return surgery_maps
        mapped = torch.stack([self.mapped(features, i, text) for i in self.used]).sum(dim=0)
        return resize_maps(surgery_maps, self.encoder.size, self.align_corners) + mapped

    def surgery_maps(self, features: Features, text: Tensor) -> Tensor:
        """Return the summed surgery maps of the used stages: [B, g, g] (§Map)."""
        tokens = (unit(self.stage_tokens(features, self.stages[i])) for i in self.used)
        summed = reduce(torch.add, (surgery(stage, text, self.config.cls_temperature) for stage in tokens))
        maps: Tensor = summed[:, 1:].unflatten(1, (self.encoder.grid, self.encoder.grid))
        return maps

    def mapped(self, features: Features, stage: int, text: Tensor) -> Tensor:
        """Return the map of the i-th stage's trained layers: [B, S, S] in 0..1; text: [2, J] or [B, 2, J] (§Map)."""
        tokens = self.ready()(self.patch_tokens(features, self.stages[stage][-1]), stage)
        return stage_map(tokens, text, self.encoder, self.config.logit_scale, self.config.mapping_align_corners)

    def patch_tokens(self, features: Features, layer: int) -> Tensor:
        """Return the patches of the tower's own path for the stage ending at a layer: [B, L, D] (§Image side)."""
        if self._aliased(layer):
            return features.attended(layer + 1)[:, self.encoder.prefixes :]
        return features.tokens(layer)

    def stage_tokens(self, features: Features, stage: range) -> Tensor:
        """Return CLIP's class token and a stage's surgery patches in the joint space: [B, 1 + L, J] (§Image side)."""
        patches = reduce(torch.add, (features.vv(layer)[:, self.encoder.prefixes :] for layer in stage))
        token = self._class_token(features, stage[-1])
        return torch.cat([token[:, None], self.encoder.project(patches)], dim=1)

    def _class_token(self, features: Features, layer: int) -> Tensor:
        """Return the class token that goes with the stage that ends at a layer, in the joint space: [B, J]."""
        if layer == self.encoder.depth:
            return features.embedding
        token = features.attended(layer + 1) if self._aliased(layer) else features.prefix(layer)
        projected: Tensor = self.encoder.project(token[:, 0])
        return projected

    def _aliased(self, layer: int) -> bool:
        return self.config.official_aliasing and layer < self.encoder.depth

    def _request(self) -> FeatureRequest:
        """Return what the used stages' surgery maps need; the last block's class token is the image embedding."""
        early = [i for i in self.used if self.stages[i][-1] < self.encoder.depth]
        vv = {layer for i in self.used for layer in self.stages[i]}
        return FeatureRequest(vv=vv, cls=True) | self._kept(early)

    def _kept(self, stages: Iterable[int]) -> FeatureRequest:
        """Return the request for the tower's own tokens that go with some stages (§Image side)."""
        ends = {self.stages[i][-1] for i in stages}
        aliased = {layer for layer in ends if self._aliased(layer)}
        return FeatureRequest(attended={layer + 1 for layer in aliased}, tokens=ends - aliased)


def _category_text(config: ClipAdConfig, encoder: Encoder) -> CategoryText:
    return CategoryText(encoder, config.prompts, noun=config.noun, ensemble=config.rvs, **rvs_parameters(config))


def _training_options(config: ClipAdPlusConfig) -> ClipAdPlusConfig:
    """Return the options with the text features that the layers are trained with (§Training)."""
    eps, min_samples = config.train_dbscan_eps, config.train_dbscan_min_samples
    return replace(config, prompts="clip_ad", noun="raw", dbscan_eps=eps, dbscan_min_samples=min_samples)


def rvs_parameters(config: ClipAdConfig) -> dict[str, Any]:
    """Return the arguments of `sentence_means.select` that belong to the options' rule."""
    by_rule: dict[str, dict[str, Any]] = {
        "kde": {"bandwidth": config.kde_bandwidth},
        "mean_shift": {"bandwidth": config.mean_shift_bandwidth},
        "dbscan": {"eps": config.dbscan_eps, "min_samples": config.dbscan_min_samples},
    }
    return {"half": config.rvs_half, **by_rule.get(config.rvs, {})}


def surgery(tokens: Tensor, text: Tensor, temperature: float) -> Tensor:
    """Return p_abnormal cos(abnormal) - p_normal cos(normal) of unit tokens [B, T, J]: [B, T], any sign (§Map).

    text: unit rows [2, J] [normal, abnormal]; p is the softmax of temperature * cosine of the class token, which comes
    first. With two labels this is CLIP Surgery's removal of redundant features.
    """
    cosines = tokens @ text.T
    weights = (temperature * cosines[:, 0]).softmax(dim=-1)
    normal, abnormal = (cosines * weights[:, None]).unbind(dim=-1)
    return abnormal - normal


def _stages(config: ClipAdConfig, encoder: Encoder) -> list[range]:
    """Return the blocks of each stage, 1-based."""
    ends = encoder.stages(config.stages)
    return [range(end - ends[0] + 1, end + 1) for end in ends]


def _used(config: ClipAdConfig) -> list[int]:
    """Return the indices of the used stages, from 0. Raises OptionError for numbers that do not exist."""
    used = config.used_stages or tuple(range(1, config.stages + 1))
    if not set(used) <= set(range(1, config.stages + 1)) or len(set(used)) < len(used):
        raise OptionError(
            f"clip_ad.used_stages is {used}; expected different numbers of 1 to {config.stages}, the number of stages."
        )
    return [number - 1 for number in used]
