"""Dual-Anchor: group tokens merged into a normal and an abnormal image anchor steer prompts, class token and map.

Paper: Roh et al., "Dual Anchors, Do It Better: Hierarchical Group Merging for Zero-Shot Anomaly Detection", arXiv
2608.11933. No code or weights are known, and the paper's text was not at hand: this follows the equations of
docs/methods/dual_anchor.md, whose results must not be called a reproduction.

Published, or in reading notes of the paper: backbones, layers, group counts, the order initialisation - assignment -
merging - update, the parity-split merge, the prompt template, the refiner's additive form, the four losses with equal
weights, Adam 1e-4, 10 epochs, batch 8. Inferred: temperature 1, 12 context vectors, the assignment's exact equation,
the cross-attention's zero start, the refiner's norm and bias, linear maps from patches to text, both logit scales,
which features the group loss averages, constants of focal and Dice loss, smoothing, and every initialisation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from zsadbench.components import losses
from zsadbench.components.postprocess import resize_maps
from zsadbench.components.similarity import abnormal_logit, unit
from zsadbench.datasets import Category
from zsadbench.encoders.base import Encoder
from zsadbench.encoders.features import FeatureRequest
from zsadbench.encoders.text import TextEncoder
from zsadbench.errors import UsageError, WeightsError
from zsadbench.methods import (
    Batch,
    MethodCard,
    Prediction,
    Stage,
    TrainableMethod,
    TrainingBatch,
    TrainRecipe,
    register,
)

from .anchors import (
    group_loss,
    orthogonality_loss,
    pool_masks,
    prompt_template,
    refine,
)
from .merging import Merged, check_sizes, gumbel_noise
from .network import CLIP, DualAnchorConfig, Network

LARGEST_SCALE = 100.0  # both logit scales are clamped to it (§Map)

DINOV2 = DualAnchorConfig(encoder="timm:vit_large_patch14_dinov2.lvd142m", size=518)  # Table S2
CLIP_ONLY = DualAnchorConfig(encoder=CLIP, size=518, text_encoder="")  # Table S2


class Forward(NamedTuple):
    """One pass over B images; L layers of M patches, widths C of the image tower and J of the space of the cosines."""

    patches: tuple[Tensor, ...]  # L times [B, M, C] after the final norm
    merged: Merged | None  # None without merge blocks
    anchors: Tensor  # [B, 2, C]: normal, abnormal
    text: Tensor  # [B, 2, J] unit rows: normal, abnormal
    refined: Tensor  # [B, C] class token
    logit: Tensor  # [B]; its sigmoid is the image score
    maps: tuple[Tensor, ...]  # [B, S, S] abnormal probabilities, one a feature set


@register
class DualAnchor(TrainableMethod):
    """The full model, and its ablations as options; presets name the training set and the tower, if it is not DINOv3.

    Everything runs in float32 but the two frozen towers, which follow the run's precision.
    """

    card = MethodCard(
        title="Dual-Anchor",
        reference="Roh et al., arXiv 2608.11933",
        scope="image",
        notes="Built from written equations: no code or weights are known, and many operators are inferred "
        "(docs/methods/dual_anchor.md). No reproduction of the paper.",
    )
    presets = {
        "visa": DualAnchorConfig(),
        "mvtec": DualAnchorConfig(trained_on="mvtec"),
        "visa_dinov2": DINOV2,
        "mvtec_dinov2": replace(DINOV2, trained_on="mvtec"),
        "visa_clip": CLIP_ONLY,
        "mvtec_clip": replace(CLIP_ONLY, trained_on="mvtec"),
        "demo": DualAnchorConfig(
            encoder="demo",
            size=None,
            text_encoder="",
            sigma=2.0,  # pixels of a small map
            trained_on="demo.train",
            recipe=TrainRecipe((Stage(epochs=5, lr=1e-3),), batch_size=8),
        ),
    }
    free_options = frozenset({"score", "top", "sigma"})

    trained: Network | None = None

    @classmethod
    def reads_text(cls, config: DualAnchorConfig) -> bool:
        """Tell that it does, whatever the options."""
        return True

    def __init__(self, config: DualAnchorConfig, encoder: Encoder) -> None:
        """Choose the layers; `encoder` has its own text tower or that of `config.text_encoder`.

        Raises WeightsError without a text tower, UsageError for groups, heads or a crop that do not fit.
        """
        super().__init__(config, encoder)
        self.layers = config.layers or encoder.stages(len(config.groups))
        self.text_tower = _text_tower(encoder)
        _check(config, encoder, self.layers)
        if config.crop_from is not None:
            self.preprocess = replace(encoder.preprocess, size=config.crop_from)
        self.request = FeatureRequest(tokens=frozenset(self.layers), cls=True)
        self.align_corners, self.sigma = config.align_corners, config.sigma

    def new_module(self) -> Network:
        """Return everything trainable, under the names of §Checkpoints."""
        tower = self.text_tower
        return Network(self.config, len(self.layers), self.encoder.width, tower.width, tower.joint_width)

    def draw(self, module: Network, generator: torch.Generator) -> None:
        """Draw weights by the rules of §Text and §Image side (§Merge blocks for the update)."""
        module.draw(generator, self._shared_projection())

    def predict(self, batch: Batch) -> Prediction:
        """Score B images: scores [B] and maps [B, S, S], all in 0..1 (§Map, §Image score)."""
        result = self.forward(batch, [batch.category] * len(batch))
        maps = torch.stack(result.maps).mean(dim=0)
        scores = result.logit.sigmoid()
        if self.config.score == "fused":
            scores = (scores + maps.flatten(1).topk(self.config.top).values.mean(dim=1)) / 2
        return Prediction(scores, self._uncrop(maps))

    def loss(
        self,
        batch: TrainingBatch,
        labels: Tensor,
        masks: Tensor,
        stage: str = "",
        *,
        noise: Sequence[Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Return the losses of image score, maps, and, with merge blocks, orthogonality and group (§Training).

        noise: Gumbel noise [B, M, n_h] of each block; None draws it from the batch's generator.
        """
        if noise is None:
            noise = self._draw_noise(batch)
        result = self.forward(batch, batch.categories, noise)
        masks = masks[:, : self.encoder.size, : self.encoder.size]
        terms = {
            "cls": functional.binary_cross_entropy_with_logits(result.logit, labels.to(result.logit.dtype)),
            "seg": torch.stack([self._map_loss(map_, masks) for map_ in result.maps]).sum(),
        }
        if self.config.hgm:
            fractions = pool_masks(masks, self.encoder.patch)
            terms["ortho"] = orthogonality_loss(result.anchors)
            terms["group"] = group_loss(result.anchors, result.patches[-1], fractions)
        return terms

    def attention_maps(self, batch: Batch) -> tuple[Tensor, ...]:
        """Return which patches each group claims, as the paper's Figure S19: one [B, n_h, h, w] a merge block.

        Values sum to 1 over the groups of a block; those of the last block are [normal, abnormal]. Raises UsageError
        without merge blocks.
        """
        merged = self.forward(batch, [batch.category] * len(batch)).merged
        if merged is None:
            raise UsageError(f"{self.name} has no attention maps with hgm=false. Set {self.name}.hgm=true.")
        grid = (self.encoder.grid, self.encoder.grid)
        return tuple(assignment.mT.unflatten(2, grid) for assignment in merged.assignments)

    def forward(
        self, batch: Batch | TrainingBatch, categories: Sequence[Category], noise: Sequence[Tensor] | None = None
    ) -> Forward:
        """Run the model on B images with a category each; differentiable. Raises NeedsCheckpoint."""
        network = self.ready()
        patches, token = self._visual(batch)
        merged = network.merge(patches, noise)
        anchors = merged.groups if merged else network.anchors["static"].expand(len(token), -1, -1)
        text = self._text(categories, anchors)
        refined = token
        if self.config.ggtr:
            refined = refine(token, anchors, network.refiner, self.config.ggtr_norm, self.config.ggtr_form)
        cosine = abnormal_logit(unit(network.align_token(refined))[:, None], text, 1.0)  # abnormal less normal: [B, 1]
        logit = scale(network.log_scale_image) * cosine
        factor = scale(network.log_scale_pixel)
        maps = tuple(self._map(features, text, factor) for features in network.align_patches(patches, merged))
        return Forward(patches, merged, anchors, text, refined, logit[:, 0], maps)

    def _visual(self, batch: Batch | TrainingBatch) -> tuple[tuple[Tensor, ...], Tensor]:
        """Return patches of every layer and the class token, all after the tower's final norm (§Encoder)."""
        if self.config.crop_from is None:
            features = batch.features(self.encoder, self.request)
        else:
            side = self.encoder.size
            features = self.encoder.encode(batch.images[:, :, :side, :side], self.request)
        with self.encoder.autocast():
            patches = tuple(self.encoder.tower.norm(features.tokens(layer)).float() for layer in self.layers)
        return patches, features.cls

    def _text(self, categories: Sequence[Category], anchors: Tensor) -> Tensor:
        """Return the unit text features of each image's own prompts: [B, 2, J]."""
        network, tower = self.ready(), self.text_tower
        nouns = [prompt_noun(category, self.config.noun) for category in categories]
        # Without anchors in them, prompts depend on the class alone: one pair a class is computed.
        rows = nouns if self.config.dsp else list(dict.fromkeys(nouns))
        ids = tower.tokenize([prompt_template(noun, self.config.context) for noun in rows])
        ends = ids.argmax(dim=1)
        prompts = network.prompt(tower.embed(ids[:, : int(ends.max()) + 1]), anchors)
        encoded = tower.encode_embeddings(prompts.flatten(0, 1), ends.repeat_interleave(2)).unflatten(0, (-1, 2))
        text = unit(encoded if network.text_up is None else network.text_up(encoded))
        return text if self.config.dsp else text[[rows.index(noun) for noun in nouns]]

    def _map(self, features: Tensor, text: Tensor, factor: Tensor) -> Tensor:
        """Return the abnormal probability of one feature set at the input size: [B, M, J] -> [B, S, S] (§Map)."""
        logits = factor * abnormal_logit(unit(features), text, 1.0)
        grid = logits.unflatten(1, (self.encoder.grid, self.encoder.grid))
        return resize_maps(grid, self.encoder.size, self.config.align_corners).sigmoid()

    def _map_loss(self, map_: Tensor, masks: Tensor) -> Tensor:
        total = losses.focal(torch.stack([1 - map_, map_], dim=1), masks) + losses.dice(map_, masks)
        return total + losses.dice(1 - map_, 1 - masks) if self.config.dice_normal else total

    def _uncrop(self, maps: Tensor) -> Tensor:
        if self.config.crop_from is None:
            return maps
        margin = self.config.crop_from - self.encoder.size
        return functional.pad(maps[:, None], (0, margin, 0, margin), mode="replicate")[:, 0]

    def _draw_noise(self, batch: TrainingBatch) -> list[Tensor]:
        if not self.config.hgm:
            return []
        patches = self.encoder.grid**2
        return [gumbel_noise((len(batch), patches, size), batch.generator) for size in self.config.groups]

    def _shared_projection(self) -> Tensor | None:
        """Return the matrix [J, C] from the image tower into the text's space, if the two share one (§Alignment)."""
        projection = self.encoder.tower.projection
        if projection is None or self.encoder.borrowed:
            return None
        basis = torch.eye(self.encoder.width, device=self.encoder.device)
        matrix: Tensor = (projection(basis) - projection(torch.zeros_like(basis))).T.cpu()  # without a bias it may have
        return matrix


def _text_tower(encoder: Encoder) -> TextEncoder:
    if encoder.text is None:
        raise WeightsError(
            f"Encoder {encoder.spec!r} has no text tower; expected one beside it. Name a CLIP model with "
            f"--set dual_anchor.text_encoder={CLIP}."
        )
    return encoder.text


def _check(config: DualAnchorConfig, encoder: Encoder, layers: Sequence[int]) -> None:
    check_sizes(config.groups, len(layers))
    if encoder.width % config.heads:
        raise UsageError(
            f"Option heads is {config.heads}, which does not divide the width {encoder.width} of {encoder.spec!r}. "
            "Choose a divisor."
        )
    if config.crop_from is not None and config.crop_from < encoder.size:
        raise UsageError(
            f"Option crop_from is {config.crop_from}; expected at least the encoder's size {encoder.size}. Raise it."
        )


def prompt_noun(category: Category, noun: str) -> str:
    """Return the class in a category's prompts, by option `noun`."""
    return {"readable": category.noun, "raw": category.name}.get(noun, noun)


def scale(log_scale: Tensor) -> Tensor:
    """Return the factor of the cosines from its learned logarithm (§Map)."""
    return log_scale.exp().clamp_max(LARGEST_SCALE)
