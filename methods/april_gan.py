"""APRIL-GAN: four trained linear layers carry CLIP's patch tokens into the text space; the map sums probabilities.

Paper: Chen et al., "APRIL-GAN: A Zero-/Few-Shot Anomaly Classification and Segmentation Method for CVPR 2023 VAND
Workshop Challenge Tracks 1&2", arXiv 2305.17382; code read: ByChelsea/VAND-APRIL-GAN@f13b8a6
(specs/methods/april_gan.md). Not reproduced: few-shot memories, training, fp16 autocast.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from zsadbench import losses
from zsadbench.encoders.base import Encoder
from zsadbench.encoders.features import FeatureRequest
from zsadbench.errors import NeedsCheckpoint, WeightsError
from zsadbench.methods import (
    Batch,
    EncoderConfig,
    MethodCard,
    Prediction,
    Stage,
    TrainableMethod,
    TrainingBatch,
    TrainRecipe,
    register,
)
from zsadbench.postprocess import resize_maps
from zsadbench.similarity import CategoryText, TextSource, abnormal_logit, unit

CHECKPOINT_KEY = "trainable_linearlayer"  # where the official .pth keeps the layers (§9)


@dataclass(frozen=True)
class AprilGanConfig(EncoderConfig):
    """Options; sources are sections of specs/methods/april_gan.md."""

    encoder: str = "open_clip:ViT-L-14-336/openai"  # §2
    size: int | None = 518  # §2
    activation: Literal["gelu", "quickgelu"] | None = "gelu"  # what the released weights were trained with (§11)
    layers: tuple[int, ...] | None = None  # None: four at equal depth, 6,12,18,24 of 24 blocks (§4)
    logit_scale: float = 100.0  # §5, §6
    noun: Literal["raw", "readable"] = "raw"  # folder name, or the dataset's noun (§11)
    align_corners: bool = True  # §5
    sigma: float = 0.0  # §7
    trained_on: str = "visa"  # dataset of the checkpoint; official files do not say it
    recipe: TrainRecipe = TrainRecipe((Stage(epochs=15, lr=1e-3, betas=(0.5, 0.999)),), batch_size=8)  # §8, on VisA


@register
class AprilGan(TrainableMethod):
    """Zero-shot inference with trained linear layers; the preset names the dataset they were trained on."""

    card = MethodCard(
        title="APRIL-GAN",
        reference="Chen et al., VAND 2023, arXiv 2305.17382",
        scope="image",
        code="ByChelsea/VAND-APRIL-GAN@f13b8a6",
        notes="The released weights were trained with the prompts of one class for each mixed batch (specs §10).",
    )
    presets = {
        "visa": AprilGanConfig(),
        "mvtec": AprilGanConfig(
            trained_on="mvtec",
            recipe=TrainRecipe((Stage(epochs=3, lr=1e-3, betas=(0.5, 0.999)),), batch_size=8, mosaic=0.2),  # §8
        ),
    }

    def __init__(self, config: AprilGanConfig, encoder: Encoder, text: TextSource | None = None) -> None:
        """Choose the layers; `text` replaces prompts and text tower. Raises WeightsError."""
        super().__init__(config, encoder)
        self.text = text or CategoryText(encoder, "april_gan", noun=config.noun)
        self.layers = config.layers or encoder.stages(4)
        self.request = FeatureRequest(tokens=frozenset(self.layers), cls=True)
        self.align_corners, self.sigma = config.align_corners, config.sigma

    def initialise(self, seed: int) -> None:
        """Draw layers as torch's `Linear` does by default (§4), from a generator of their own."""
        linear = self._new_layers()
        generator = torch.Generator().manual_seed(seed)
        bound = self.encoder.width**-0.5
        for parameter in linear.parameters():
            nn.init.uniform_(parameter, -bound, bound, generator)
        self.trained = linear.to(self.encoder.device)

    def load_checkpoint(self, tensors: Mapping[str, Tensor], origin: str) -> None:
        """Take `fc.{i}.weight` [J, D] and `fc.{i}.bias` [J], alone or below the official `trainable_linearlayer`.

        Raises WeightsError naming the key that is missing, unknown or of another shape.
        """
        prefix = f"{CHECKPOINT_KEY}."
        official = {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
        found = official or dict(tensors)
        linear = self._new_layers()
        expected = linear.state_dict()
        for key in sorted(found.keys() | expected.keys()):
            got = list(found[key].shape) if key in found else "no such tensor"
            wanted = list(expected[key].shape) if key in expected else "no such tensor"
            if got != wanted:
                raise WeightsError(
                    f"Checkpoint {origin}, key {key!r}: got {got}, expected {wanted} for {len(self.layers)} layers on "
                    f"{self.encoder.spec}. Choose the checkpoint that belongs to this encoder."
                )
        linear.load_state_dict(found)
        self.trained = linear.to(self.encoder.device)
        self.trained_on = frozenset({self.config.trained_on})

    def predict(self, batch: Batch) -> Prediction:
        """Score B images: scores [B] in 0..1 are CLIP's own (§6), maps [B, S, S] in 0..number of layers (§5)."""
        if self.trained is None:
            raise NeedsCheckpoint(
                f"{self.name or 'april_gan'} needs trained linear layers; got none. "
                f"Give an official checkpoint with --checkpoint {self.name or 'april_gan'}=PATH."
            )
        features = batch.features(self.encoder, self.request)
        text = self.text(batch.category)
        scores = abnormal_logit(unit(features.embedding), text, self.config.logit_scale).sigmoid()
        maps = sum(self.stage_map(features.tokens(layer), i, text) for i, layer in enumerate(self.layers))
        return Prediction(scores, maps)

    def loss(self, batch: TrainingBatch, labels: Tensor, masks: Tensor, stage: str = "") -> dict[str, Tensor]:
        """Return focal and Dice loss of every stage's map, each a sum over the stages (§8)."""
        tokens = batch.features(self.encoder, FeatureRequest(tokens=self.request.tokens))
        text = torch.stack([self.text(category) for category in batch.categories])
        maps = [self.stage_map(tokens.tokens(layer), i, text) for i, layer in enumerate(self.layers)]
        return {
            "focal": sum(losses.focal(torch.stack([1 - map_, map_], dim=1), masks) for map_ in maps),
            "dice": sum(losses.dice(map_, masks) for map_ in maps),
        }

    def stage_map(self, tokens: Tensor, stage: int, text: Tensor) -> Tensor:
        """Return one stage's abnormal probability at the input size: tokens [B, L, D] -> [B, S, S], differentiable.

        text: [2, J] for all images, or [B, 2, J].

        Logits are upsampled before the softmax (specs/methods/april_gan.md §5).
        """
        logits = abnormal_logit(unit(self.trained(tokens, stage)), text, self.config.logit_scale)
        grid = logits.unflatten(1, (self.encoder.grid, self.encoder.grid))
        return resize_maps(grid, self.encoder.size, self.align_corners).sigmoid()

    def _new_layers(self) -> LinearLayers:
        return LinearLayers(len(self.layers), self.encoder.width, self.encoder.joint_width)


class LinearLayers(nn.Module):
    """One linear map from the visual width D to the joint width J a stage, under the official names (§4, §9)."""

    def __init__(self, stages: int, width: int, joint_width: int) -> None:
        """Make layers without values: they are drawn or loaded next."""
        super().__init__()
        self.fc = nn.ModuleList(nn.utils.skip_init(nn.Linear, width, joint_width) for _ in range(stages))

    def forward(self, tokens: Tensor, stage: int) -> Tensor:
        """Map tokens [B, L, D] of the i-th stage to [B, L, J]."""
        return self.fc[stage](tokens)
