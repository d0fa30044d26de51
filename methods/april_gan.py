"""APRIL-GAN: four trained linear layers carry CLIP's patch tokens into the text space; the map sums probabilities.

Paper: Chen et al., "APRIL-GAN: A Zero-/Few-Shot Anomaly Classification and Segmentation Method for CVPR 2023 VAND
Workshop Challenge Tracks 1&2", arXiv 2305.17382; code read: ByChelsea/VAND-APRIL-GAN@f13b8a6
(docs/methods/april_gan.md). Not reproduced: fp16 autocast; few-shot references are drawn without replacement.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from zsadbench.components.image_scores import minmax
from zsadbench.components.postprocess import resize_maps
from zsadbench.components.similarity import (
    CategoryText,
    TextSource,
    abnormal_logit,
    joint_width,
    nearest_distance,
    unit,
)
from zsadbench.components.stage_layers import StageLayers, stage_losses, stage_map
from zsadbench.datasets import Category
from zsadbench.encoders.base import Encoder
from zsadbench.encoders.features import FeatureRequest, Features
from zsadbench.errors import UsageError
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

CHECKPOINT_KEY = "trainable_linearlayer"  # where the official .pth keeps the layers (§Checkpoints)


@dataclass(frozen=True)
class AprilGanConfig(EncoderConfig):
    """Options; sources are sections of docs/methods/april_gan.md."""

    encoder: str = "open_clip:ViT-L-14-336/openai"  # §Encoder
    size: int | None = 518  # §Encoder
    activation: Literal["gelu", "quickgelu"] | None = "gelu"  # what the released weights were trained with (§Choices)
    layers: tuple[int, ...] | None = None  # None: four at equal depth, 6,12,18,24 of 24 blocks (§Image side)
    logit_scale: float = 100.0  # §Map, §Image score
    noun: Literal["raw", "readable"] = "raw"  # folder name, or the dataset's noun (§Choices)
    shots: int = 0  # normal reference images; more than 0 adds the patch memories (§Map)
    few_shot_score: Literal["minmax", "bounded"] = "minmax"  # how the map's peak joins the score (§Image score)
    align_corners: bool = True  # §Map
    sigma: float = 0.0  # §Smoothing
    trained_on: str = "visa"  # dataset of the checkpoint; official files do not say it
    recipe: TrainRecipe = TrainRecipe((Stage(epochs=15, lr=1e-3, betas=(0.5, 0.999)),), batch_size=8)  # §Training


MVTEC = AprilGanConfig(
    trained_on="mvtec",
    recipe=TrainRecipe((Stage(epochs=3, lr=1e-3, betas=(0.5, 0.999)),), batch_size=8, mosaic=0.2),  # §Training
)


@register
class AprilGan(TrainableMethod):
    """Linear layers, and with `shots` patch memories; the preset names the dataset that the layers were trained on."""

    card = MethodCard(
        title="APRIL-GAN",
        reference="Chen et al., VAND 2023, arXiv 2305.17382",
        scope="image",
        code="ByChelsea/VAND-APRIL-GAN@f13b8a6",
        notes="The released weights were trained with the prompts of one class for each mixed batch.",
    )
    presets = {
        "visa": AprilGanConfig(),
        "mvtec": MVTEC,
        "1shot_visa": AprilGanConfig(shots=1),
        "1shot_mvtec": replace(MVTEC, shots=1),
        "demo": AprilGanConfig(
            trained_on="demo.train",
            recipe=TrainRecipe((Stage(epochs=4, lr=1e-2, betas=(0.5, 0.999)),), batch_size=8),  # docs/demo.md#use
        ),
    }
    free_options = frozenset({"shots", "few_shot_score", "align_corners", "sigma"})

    @classmethod
    def reads_text(cls, config: AprilGanConfig) -> bool:
        """Tell that it does, whatever the options."""
        return True

    def __init__(self, config: AprilGanConfig, encoder: Encoder, text: TextSource | None = None) -> None:
        """Choose the layers; `text` replaces prompts and text tower. Raises WeightsError."""
        super().__init__(config, encoder)
        self.text = text or CategoryText(encoder, "april_gan", noun=config.noun)
        self.layers = config.layers or encoder.stages(4)
        self.request = FeatureRequest(tokens=frozenset(self.layers), cls=True)
        self.align_corners, self.sigma, self.shots = config.align_corners, config.sigma, config.shots
        self.memory: tuple[Category, list[Tensor]] | None = None

    @property
    def image_scope(self) -> Scope:
        """The category where few-shot image scores are min-max scaled over it, else the image."""
        return "category" if self.shots and self.config.few_shot_score == "minmax" else "image"

    def new_module(self) -> StageLayers:
        """Return one linear layer a stage (§Image side, §Checkpoints)."""
        return StageLayers(len(self.layers), self.encoder.width, joint_width(self.encoder))

    def draw(self, module: StageLayers, generator: torch.Generator) -> None:
        """Draw layers as torch's `Linear` does by default (§Image side)."""
        module.draw(generator)

    def own_names(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Take the layers alone, or from below the official `trainable_linearlayer`."""
        prefix = f"{CHECKPOINT_KEY}."
        official = {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
        return official or tensors

    def remember(self, references: Batch) -> None:
        """Keep the unit patch tokens of the normal reference images of the next category, a memory a layer (§Map)."""
        features = references.features(self.encoder, FeatureRequest(tokens=self.request.tokens))
        self.memory = references.category, [unit(features.tokens(layer)).flatten(0, 1) for layer in self.layers]

    def predict(self, batch: Batch) -> Prediction:
        """Return CLIP's abnormal probability and the map's maximum [B, 2], and maps [B, S, S].

        Zero-shot, maps are in 0..number of layers (§Map). Few-shot, they add the distances to the memories.
        """
        text = self.text(batch.category)
        features = batch.features(self.encoder, self.request)
        probability = abnormal_logit(unit(features.embedding), text, self.config.logit_scale).sigmoid()
        maps = torch.stack([self.stage_map(features.tokens(layer), i, text) for i, layer in enumerate(self.layers)])
        summed = maps.sum(dim=0)
        if self.shots:
            summed = summed + self.memory_map(features, batch.category)
        return Prediction(torch.stack([probability, summed.amax(dim=(1, 2))], dim=1), summed)

    def finalise(self, scores: Tensor) -> Final:
        """Return image scores in 0..1 of probabilities and maxima [N, 2] (§Image score).

        Zero-shot they are CLIP's own and ignore the maps; few-shot, the mean of CLIP's own and of the scaled maximum.
        """
        probability, peaks = scores.unbind(1)
        return Final((probability + self.scaled_peak(peaks)) / 2 if self.shots else probability)

    def memory_map(self, features: Features, category: Category) -> Tensor:
        """Return the distance of each patch to its nearest reference patch, a sum over layers: [B, S, S] (§Map)."""
        if self.memory is None or self.memory[0] != category:
            raise UsageError(
                f"{self.name or 'april_gan'} with shots={self.shots} knows no references of category "
                f"{category.name!r}; expected remember(references) before predict(batch)."
            )
        nearest = [
            nearest_distance(unit(features.tokens(layer)), memory)
            for layer, memory in zip(self.layers, self.memory[1], strict=True)
        ]
        grid = torch.stack(nearest).sum(dim=0).unflatten(1, (self.encoder.grid, self.encoder.grid))
        return resize_maps(grid, self.encoder.size, self.align_corners)

    def scaled_peak(self, peaks: Tensor) -> Tensor:
        """Return the maximum of each few-shot map [N] in 0..1: [N].

        "minmax" scales over the images given, the whole category (§Image score). "bounded" is ours, for an image alone:
        it divides by twice the number of layers, what probabilities and distances of vectors at right angles add up to.
        """
        if self.config.few_shot_score == "bounded":
            return (peaks / (2 * len(self.layers))).clamp_max(1)
        return minmax(peaks)

    def loss(self, batch: TrainingBatch, labels: Tensor, masks: Tensor, stage: str = "") -> dict[str, Tensor]:
        """Return focal and Dice loss of every stage's map, each a sum over the stages (§Training)."""
        tokens = batch.features(self.encoder, FeatureRequest(tokens=self.request.tokens))
        text = torch.stack([self.text(category) for category in batch.categories])
        return stage_losses(
            [self.stage_map(tokens.tokens(layer), i, text) for i, layer in enumerate(self.layers)], masks
        )

    def stage_map(self, tokens: Tensor, stage: int, text: Tensor) -> Tensor:
        """Return one stage's abnormal probability at the input size: tokens [B, L, D] -> [B, S, S], differentiable.

        text: [2, J] for all images, or [B, 2, J].

        Logits are upsampled before the softmax (docs/methods/april_gan.md, §Map).
        """
        mapped = self.ready()(tokens, stage)
        return stage_map(mapped, text, self.encoder, self.config.logit_scale, self.align_corners)
