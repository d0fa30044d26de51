"""AA-CLIP: adapters in CLIP's text tower learn anomaly-aware anchors, then adapters in its image tower to meet them.

Paper: Ma et al., "AA-CLIP: Enhancing Zero-Shot Anomaly Detection via Anomaly-Aware CLIP", CVPR 2025, arXiv 2503.06661;
code read: Mwxinnn/AA-CLIP@53db195 (docs/methods/aa_clip.md). Image scores are scaled over the whole
category; so are maps, but with one increasing line for all of them, which no metric of pixels can see.

Not reproduced: the official descriptions of each class ("dark bottle") in the prompts, which nouns replace; the k-shot
index lists, which were never released; a scaling that the code skips where a maximum is exactly 1. Official weights are
two files: give --checkpoint aa_clip.visa=FILE for each, or once a folder that holds these two alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.transforms.functional import gaussian_blur

from zsadbench.components import losses, prompts
from zsadbench.components.image_scores import minmax
from zsadbench.components.postprocess import resize_maps
from zsadbench.components.similarity import abnormal_logit, text_tower, unit
from zsadbench.datasets import Category
from zsadbench.encoders.base import Encoder
from zsadbench.encoders.features import FeatureRequest
from zsadbench.encoders.transformer import Block
from zsadbench.errors import OptionError
from zsadbench.methods import (
    Augmentation,
    Batch,
    EncoderConfig,
    Final,
    MethodCard,
    MultiStep,
    Prediction,
    Scope,
    Stage,
    TrainableMethod,
    TrainingBatch,
    TrainRecipe,
    register,
)

from .adapters import Adapters, Widths, mix

BLUR = {"industrial": (7, 1.0), "medical": (9, 1.5)}  # side and sigma on the patch grid (§Smoothing)
WARP = Augmentation(rotation=30, translation=0.15, warp_chance=0.5, horizontal_flip=0.5, vertical_flip=0.5)  # §Training
JITTER = replace(WARP, brightness=0.5, contrast=0.5, saturation=0.5, colour_chance=0.7)  # §Training
TEXT = Stage(5, 1e-5, "text", ("text_adapter",), betas=(0.5, 0.999), augment=WARP)  # §Training
IMAGE = Stage(
    20, 5e-4, "image", ("image_adapter",), betas=(0.5, 0.999), batch_size=2, schedule=MultiStep((16000, 32000), 0.5),
    augment=JITTER,
)  # §Training  # fmt: skip


@dataclass(frozen=True)
class AaClipConfig(EncoderConfig):
    """Options; sources are sections of docs/methods/aa_clip.md."""

    encoder: str = "open_clip:ViT-L-14-336/openai"  # §Encoder
    size: int | None = 518  # §Encoder
    activation: Literal["gelu", "quickgelu"] | None = "gelu"  # what the released weights were trained with (§Encoder)
    levels: tuple[int, ...] | None = None  # None: four at equal depth, 6,12,18,24 of 24 blocks (§Map)
    image_adapt_until: int | None = None  # adapted image blocks; None: a quarter, 6 of 24 (§Image side)
    text_adapt_until: int | None = None  # adapted text blocks; None: a quarter, 3 of 12 (§Text)
    image_adapt_weight: float = 0.1  # §Image side
    text_adapt_weight: float = 0.1  # §Text
    relu: bool = False  # a LeakyReLU after each image projection (§Image side)
    logit_scale: float = 100.0  # §Map
    noun: Literal["readable", "raw"] = "readable"  # the dataset's noun, or folder name, for the description (§Text)
    domain: Literal["industrial", "medical"] = "industrial"  # rule of blur and image score (§Image score, §Smoothing)
    score: Literal["minmax", "plain"] = "minmax"  # scaled over the category with the maps, or as it is (§Image score)
    surgery_blocks: int | None = None  # last blocks with V-V attention in stage 1; None: 19 of 24, 10 of 12 (§Training)
    surgery_attention_axis: Literal["batch", "tokens"] = "batch"  # as published, or as meant (§Training)
    stage1_loss: Literal["upstream_last", "paper_sum"] = "upstream_last"  # maps of the last level, or all (§Training)
    text_norm_weight: float = 0.1  # of the orthogonality of the two anchors (§Training)
    trained_on: str = "visa"  # dataset of the checkpoint
    recipe: TrainRecipe = TrainRecipe((TEXT, IMAGE), batch_size=16)


EPOCH15 = AaClipConfig(recipe=TrainRecipe((TEXT, replace(IMAGE, epochs=15)), batch_size=16))  # §Checkpoints
MEDICAL = AaClipConfig(domain="medical")


@register
class AaClip(TrainableMethod):
    """Presets name the training set; published trainings end at `epoch15` (§Checkpoints), the default at epoch 20."""

    card = MethodCard(
        title="AA-CLIP",
        reference="Ma et al., CVPR 2025, arXiv 2503.06661",
        scope="image",
        image_scope="category",
        code="Mwxinnn/AA-CLIP@53db195",
        licence="Apache-2.0",
        notes="Image scores are min-max scaled over the category, as in the code, and all its maps with one line; in "
        "presets inductive neither is. Stage 1 follows the code, not the paper: one level is trained, and V-V "
        "attention runs over the images of a batch. Nouns replace the "
        "official class descriptions. The published MVTec AD -> VisA image scores were not reproduced by others.",
    )
    presets = {
        "visa": AaClipConfig(),
        "mvtec": AaClipConfig(trained_on="mvtec"),
        "visa_epoch15": EPOCH15,
        "mvtec_epoch15": replace(EPOCH15, trained_on="mvtec"),
        "inductive_visa": AaClipConfig(score="plain"),
        "inductive_mvtec": AaClipConfig(score="plain", trained_on="mvtec"),
        "visa_medical": MEDICAL,
        "mvtec_medical": replace(MEDICAL, trained_on="mvtec"),
        "demo": AaClipConfig(
            encoder="demo",
            size=None,
            activation=None,
            trained_on="demo.train",
            recipe=TrainRecipe(
                (
                    Stage(1, 1e-2, "text", ("text_adapter",), betas=(0.5, 0.999)),
                    Stage(1, 3e-2, "image", ("image_adapter",), betas=(0.5, 0.999), batch_size=4),
                ),
                batch_size=16,
            ),
        ),
    }
    free_options = frozenset({"domain", "score"})

    trained: Adapters | None = None

    @classmethod
    def reads_text(cls, config: AaClipConfig) -> bool:
        """Tell that it does, whatever the options."""
        return True

    def __init__(self, config: AaClipConfig, encoder: Encoder) -> None:
        """Choose levels and blocks. Raises WeightsError without a text tower, OptionError for what does not fit it."""
        super().__init__(config, encoder)
        self.text = text_tower(encoder)
        self.levels = tuple(sorted(config.levels or encoder.stages(4)))
        if not 1 <= self.levels[0] <= self.levels[-1] <= encoder.depth:
            raise OptionError(f"aa_clip.levels is {self.levels}; expected blocks 1 to {encoder.depth}.")
        self.image_until = _count("image_adapt_until", config.image_adapt_until, encoder.depth // 4, encoder.depth)
        self.text_until = _count("text_adapt_until", config.text_adapt_until, self.text.depth // 4, self.text.depth)
        default = encoder.depth - encoder.depth // 4 + 1
        self.surgery_blocks = _count("surgery_blocks", config.surgery_blocks, default, encoder.depth)
        self.blur = BLUR[config.domain]
        if encoder.grid <= self.blur[0] // 2:
            raise OptionError(
                f"aa_clip.domain={config.domain} blurs maps over {self.blur[0]} patches; the grid of {encoder.spec!r} "
                f"has {encoder.grid} at a side, expected more than {self.blur[0] // 2}. Choose a larger size."
            )
        self.align_corners = True  # §Map
        self._known: tuple[Tensor, dict[str, Tensor]] | None = None  # text adapters, and by noun what they give

    def new_module(self) -> Adapters:
        """Return the adapters of both towers."""
        widths = Widths(self.encoder.width, self.text.width, self.text.joint_width)
        return Adapters(widths, len(self.levels), self.image_until, self.text_until, self.config.relu)

    def draw(self, module: Adapters, generator: torch.Generator) -> None:
        """Draw all weights by Xavier's uniform rule (§Image side)."""
        for parameter in module.parameters():
            nn.init.xavier_uniform_(parameter, generator=generator)

    def predict(self, batch: Batch) -> Prediction:
        """Return blurred sums over the levels [B, g, g], and what scores are made of (§Map, §Image score, §Smoothing).

        That is, of each image, the least and largest value of its map at the input size, and the detection token's
        score, in 0..1: [B, 3].
        """
        text = self.known_text(batch.category)
        segmentation, detection = self.encode_images(batch.images)
        logits = reduce(torch.add, (abnormal_logit(tokens, text, self.config.logit_scale) for tokens in segmentation))
        grid = ((logits + len(segmentation)) / 2).unflatten(1, (self.encoder.grid, self.encoder.grid))
        maps = gaussian_blur(grid, *self.blur)  # here, because it precedes the upsampling
        full = resize_maps(maps, self.encoder.size, self.align_corners)
        detected = (detection @ text[1] + 1) / 2
        return Prediction(torch.stack([full.amin(dim=(1, 2)), full.amax(dim=(1, 2)), detected], dim=1), maps)

    @property
    def image_scope(self) -> Scope:
        """The category where image scores are scaled over it, else the image."""
        return "category" if self.config.score == "minmax" else "image"

    def finalise(self, scores: Tensor) -> Final:
        """Return image scores, in 0..1 if scaled, and the line of the maps, of evidence [N, 3] (§Image score)."""
        lowest, highest, detected = scores.unbind(1)
        scaled, industrial = self.config.score == "minmax", self.config.domain == "industrial"
        if not scaled:
            return Final((highest + detected) / 2 if industrial else highest)
        start = lowest.min()
        span = (highest.max() - start).clamp_min(torch.finfo(torch.float32).tiny)
        peaks = (highest - start) / span
        return Final((peaks + minmax(detected)) / 2 if industrial else peaks, start, span)

    def loss(self, batch: TrainingBatch, labels: Tensor, masks: Tensor, stage: str = "") -> dict[str, Tensor]:
        """Return the losses of stage "text" or "image" (§Training)."""
        if stage == "text":
            nouns = [self.noun(category) for category in batch.categories]
            anchors = {noun: self.encode_text(noun) for noun in dict.fromkeys(nouns)}
            text = torch.stack([anchors[noun] for noun in nouns])
            levels = self.surgery_features(batch)
            levels = levels[-1:] if self.config.stage1_loss == "upstream_last" else levels
            overlap = (text[:, 0] * text[:, 1]).sum(dim=1).mean() ** 2
            return {"seg": self.map_loss(levels, text, masks), "ortho": self.config.text_norm_weight * overlap}
        text = torch.stack([self.known_text(category) for category in batch.categories])
        segmentation, detection = self.encode_images(batch.images)
        cosines = (text @ detection[:, :, None])[..., 0]  # [B, 2], without a temperature
        return {"cls": functional.cross_entropy(cosines, labels), "seg": self.map_loss(segmentation, text, masks)}

    def map_loss(self, levels: Sequence[Tensor], text: Tensor, masks: Tensor) -> Tensor:
        """Return focal and Dice losses of some levels' maps, summed: each [B, L, J], text [B, 2, J] (§Training)."""
        total = masks.new_zeros(())
        for tokens in levels:
            logits = abnormal_logit(tokens, text, self.config.logit_scale)
            grid = logits.unflatten(1, (self.encoder.grid, self.encoder.grid))
            abnormal = resize_maps(grid, self.encoder.size, self.align_corners).sigmoid()
            total = total + losses.focal(torch.stack([1 - abnormal, abnormal], dim=1), masks)
            total = total + losses.dice(1 - abnormal, 1 - masks) + losses.dice(abnormal, masks)
        return total

    def noun(self, category: Category) -> str:
        """Return the class in a category's prompts."""
        return category.noun if self.config.noun == "readable" else category.name

    def known_text(self, category: Category) -> Tensor:
        """Return the anchors of a category, computed once for given text adapters. Raises NeedsCheckpoint."""
        noun = self.noun(category)
        with torch.inference_mode(False), torch.no_grad():  # a cached inference tensor could not be trained against
            weights = nn.utils.parameters_to_vector(self.ready().text_adapter.parameters())
            if self._known is None or not torch.equal(self._known[0], weights):
                self._known = weights, {}
            if noun not in self._known[1]:
                self._known[1][noun] = self.encode_text(noun)
        return self._known[1][noun]

    def encode_text(self, noun: str) -> Tensor:
        """Return the anchors of a noun: unit rows [2, J] [normal, abnormal], differentiable (§Text)."""
        *adapters, projection = self.ready().text_adapter
        normal, abnormal = prompts.sentences(prompts.get("aa_clip"), noun)
        ids = self.text.tokenize([*normal, *abnormal])

        def adapt(layer: int, x: Tensor) -> Tensor:
            return mix(x, adapters[layer - 1](x), self.config.text_adapt_weight) if layer <= len(adapters) else x

        rows = self.text.end_tokens(self.text.embed(ids), ids.argmax(dim=1), adapt)
        embeddings = unit(projection(rows.float()))
        return torch.stack([unit(part.mean(dim=0)) for part in embeddings.split([len(normal), len(abnormal)])])

    def encode_images(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return unit patch tokens of each level [B, L, J], and the mean detection token [B, J] (§Image side).

        Raises NeedsCheckpoint.
        """
        adapters, levels = self.ready().image_adapter, []
        x = self.encoder.embed(images)
        with self.encoder.autocast():
            x = self.encoder.tower.norm_pre(x)
            for layer, block in enumerate(self.encoder.blocks[: self.levels[-1]], start=1):
                x = block(x)
                if layer <= self.image_until:
                    x = mix(x, adapters["layer_adapters"][layer - 1](x), self.config.image_adapt_weight)
                if layer in self.levels:
                    levels.append(self.encoder.tower.norm(x[:, self.encoder.prefixes :]))
            segmentation = [project(tokens) for project, tokens in zip(adapters["seg_proj"], levels, strict=True)]
            detection = adapters["det_proj"](levels[-1])
        return [unit(tokens.float()) for tokens in segmentation], unit(detection.float()).mean(dim=1)

    @torch.no_grad()
    def surgery_features(self, batch: TrainingBatch) -> list[Tensor]:
        """Return what text is trained against: V-V patches plus CLIP's embedding, [B, L, J] a level (§Training)."""
        before = self.encoder.depth - self.surgery_blocks  # blocks that are CLIP's own
        early = {level for level in self.levels if level <= before}
        features = batch.features(self.encoder, FeatureRequest(tokens={before} | early, cls=True))
        found = [features.tokens(level) for level in sorted(early)]
        x = torch.cat([features.prefix(before), features.tokens(before)], dim=1)
        with self.encoder.autocast():
            for layer in range(before + 1, self.levels[-1] + 1):
                block = self.encoder.blocks[layer - 1]
                x = x + attend_values(block, x, self.config.surgery_attention_axis)
                x = x + block.mlp(x)
                if layer in self.levels:
                    found.append(x[:, self.encoder.prefixes :])
        image = unit(features.embedding)[:, None]
        return [unit(self.encoder.project(tokens)) + image for tokens in found]


def attend_values(block: Block, x: Tensor, axis: str) -> Tensor:
    """Return a block's value-value attention of tokens [B, T, D], over the tokens of an image or over the images.

    "batch" is the published code, whose attention took the token axis for the batch: at each position, an image attends
    to the same position of all images (§Training).
    """
    v = block.qkv(block.norm1(x))[2]  # [B, heads, T, D / heads]
    if axis == "tokens":
        return block.attend(v, v, v)
    v = v.transpose(0, 2)
    return block.attend(v, v, v).transpose(0, 1)


def _count(name: str, chosen: int | None, default: int, blocks: int) -> int:
    """Return how many blocks an option means; at least 1 by default. Raises OptionError."""
    count = max(1, default) if chosen is None else chosen
    if not 0 <= count <= blocks:
        raise OptionError(f"aa_clip.{name} is {count}; expected 0 to {blocks}, the blocks of the tower.")
    return count
