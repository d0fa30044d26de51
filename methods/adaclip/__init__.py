"""AdaCLIP: static and per-image prompts in both CLIP towers; clusters of anomalous patches join the class token.

Paper: Cao et al., "AdaCLIP: Adapting CLIP with Hybrid Learnable Prompts for Zero-Shot Anomaly Detection", ECCV 2024,
arXiv 2407.15795; code read: caoyunkang/AdaCLIP@e27ee32 (docs/methods/adaclip.md). Not reproduced: fp16 autocast, the
choice of the best epoch on a test set (the last one counts), and k-means drawn from a global random state, which made
an image's score depend on the images before it. Rounding prompts to float16 is an option: it turns the last bit of a
number, which depends on the batch, into a thousandth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from zsadbench.components import losses, prompts
from zsadbench.components.postprocess import resize_maps
from zsadbench.components.prompt_learning import deep_prompts
from zsadbench.components.similarity import abnormal_logit, text_tower, unit
from zsadbench.datasets import Category
from zsadbench.encoders.base import Encoder
from zsadbench.encoders.features import FeatureRequest
from zsadbench.errors import UsageError
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

from . import fusion
from .hybrid_prompts import HybridPrompts

CHECKPOINT_PREFIX = "clip_model."  # of the keys in official files (§Checkpoints)


def _recipe(epochs: int = 5, lr: float = 1e-2, mosaic: float = 0.0) -> TrainRecipe:
    """Return the published recipe or a variation of it (§Training)."""
    stage = Stage(epochs, lr, optimiser="adamw", betas=(0.5, 0.999), weight_decay=0.01)
    return TrainRecipe((stage,), batch_size=1, mosaic=mosaic)


@dataclass(frozen=True)
class AdaClipConfig(EncoderConfig):
    """Options; sources are sections of docs/methods/adaclip.md."""

    encoder: str = "open_clip:ViT-L-14-336/openai"  # §Encoder
    size: int | None = 518  # §Encoder
    activation: Literal["gelu", "quickgelu"] | None = "gelu"  # §Encoder
    pos_embed: Literal["bicubic_antialias", "bicubic", "bilinear"] = "bicubic"  # §Encoder
    layers: tuple[int, ...] | None = None  # None: four at equal depth, 6,12,18,24 of 24 blocks (§Image side)
    prompt_towers: Literal["visual+text", "visual", "text", "none"] = "visual+text"  # with prompts (§Published numbers)
    prompt_kinds: Literal["static+dynamic", "static", "dynamic"] = "static+dynamic"  # summed (§Published numbers)
    prompt_length: int = 5  # M (§Image side)
    prompt_depth: int = 4  # J, blocks that get prompts (§Image side)
    half_prompts: bool = False  # round prompts to float16 as the code does (§Choices); off: see the docstring above
    score: Literal["hsf", "hsf_paper", "class_token", "map_max"] = "hsf"  # §Semantic fusion, §Image score
    clusters: int = 20  # K (§Semantic fusion)
    cluster_weight: float = 0.2  # of the clusters beside the class token (§Semantic fusion)
    cluster_seed: int = 111  # of every image's k-means; the code seeds once a run (§Semantic fusion)
    logit_scale: float = 100.0  # §Image side, §Image score
    noun: Literal["raw", "readable"] = "raw"  # folder name, or the dataset's noun; "-" becomes a space (§Text)
    dice: Literal["rows", "images"] = "rows"  # what the Dice loss is a mean over (§Training)
    align_corners: bool = True  # §Map
    sigma: float = 4.0  # §Smoothing
    trained_on: str = "visa"  # datasets of the checkpoint, joined by "+"; official files do not say it
    recipe: TrainRecipe = _recipe()  # §Training, on VisA


class Encoded(NamedTuple):
    """What both towers say about B images; l layers of L patches."""

    patches: Tensor  # [B, l, L, J] unit
    token: Tensor  # [B, J] unit class token
    text: Tensor  # [B, 2, J] unit rows: normal, abnormal


@register
class AdaClip(TrainableMethod):
    """Prompts and projection layers; the preset names the datasets that they were trained on.

    Text depends on the image, so each image's own sentences are encoded, and the image itself runs twice: once frozen,
    a pass shared with other methods, for its dynamic prompts.
    """

    card = MethodCard(
        title="AdaCLIP",
        reference="Cao et al., ECCV 2024, arXiv 2407.15795",
        scope="image",
        code="caoyunkang/AdaCLIP@e27ee32",
        licence="MIT; the weights have none",
        notes="The hybrid semantic fusion is that of the code, which differs from the paper's (score=hsf_paper). The "
        "official mvtec_colondb and visa_clinicdb files are named after their training sets; their epoch "
        "was chosen on VisA and on MVTec AD. pretrained_all has seen every dataset and has no preset.",
    )
    presets = {
        "visa": AdaClipConfig(),
        "mvtec": AdaClipConfig(trained_on="mvtec", recipe=_recipe(mosaic=0.2)),  # §Training
        "visa_clinicdb": AdaClipConfig(trained_on="visa+clinicdb"),  # §Training, §Checkpoints
        "mvtec_colondb": AdaClipConfig(trained_on="mvtec+colondb", recipe=_recipe(mosaic=0.2)),
        "demo": AdaClipConfig(
            encoder="demo",
            size=None,
            clusters=4,  # of 144 patches; 20 would take most of them
            sigma=1.0,  # pixels of a small map
            trained_on="demo.train",
            recipe=replace(_recipe(epochs=1), batch_size=4),
        ),
    }
    free_options = frozenset({"sigma"})

    trained: HybridPrompts | None = None

    @classmethod
    def reads_text(cls, config: AdaClipConfig) -> bool:
        """Tell that it does, whatever the options."""
        return True

    def __init__(self, config: AdaClipConfig, encoder: Encoder) -> None:
        """Choose the layers. Raises WeightsError without a text tower, UsageError for clusters without patches."""
        super().__init__(config, encoder)
        self.layers = config.layers or encoder.stages(4)
        self.text_tower = text_tower(encoder)
        self.prompts = prompts.get("adaclip")
        self.prompts_vision = "visual" in config.prompt_towers
        self.request = FeatureRequest(
            tokens=() if self.prompts_vision else self.layers,
            cls=not self.prompts_vision or "dynamic" in config.prompt_kinds,
        )
        self.align_corners, self.sigma = config.align_corners, config.sigma
        self._ids: dict[Category, Tensor] = {}
        if not 1 <= config.clusters <= encoder.grid**2:
            raise UsageError(
                f"Option clusters is {config.clusters}; expected 1 to {encoder.grid**2}, the patches of an image of "
                f"{encoder.spec!r}. Set adaclip.clusters."
            )

    def new_module(self) -> HybridPrompts:
        """Return everything trainable, under the official names (§Checkpoints)."""
        config, encoder = self.config, self.encoder
        widths = {"visual": encoder.width, "text": self.text_tower.width}
        return HybridPrompts(
            {tower: width for tower, width in widths.items() if tower in config.prompt_towers},
            self.text_tower.joint_width,
            kinds=config.prompt_kinds,
            length=config.prompt_length,
            depth=config.prompt_depth,
            projections=(len(self.layers), encoder.width),
        )

    def draw(self, module: HybridPrompts, generator: torch.Generator) -> None:
        """Draw prompts and layers by the rules of §Image side."""
        module.draw(generator)

    def own_names(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Drop the official prefix `clip_model.`."""
        return {name.removeprefix(CHECKPOINT_PREFIX): tensor for name, tensor in tensors.items()}

    def predict(self, batch: Batch) -> Prediction:
        """Score B images: scores [B] and maps [B, S, S], all in 0..1 (§Map, §Image score)."""
        encoded = self.encode(batch, [batch.category] * len(batch))
        logits = self.patch_logits(encoded)
        maps = self._upsample(logits.mean(dim=1)).sigmoid()
        if self.config.score == "map_max":
            return Prediction(maps.amax(dim=(1, 2)), maps)
        return Prediction(self.image_logit(encoded, logits).sigmoid(), maps)

    def loss(
        self, batch: TrainingBatch, labels: Tensor, masks: Tensor, stage: str = "", *, chosen: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return the focal loss of the image score, and focal and two Dice losses over the layers' maps (§Training).

        With score=map_max the image score that learns is the class token's. `chosen`: as in `image_logit`.
        """
        encoded = self.encode(batch, batch.categories)
        logits = self.patch_logits(encoded)
        score = self.image_logit(encoded, logits, chosen).sigmoid()[:, None, None]
        maps = [self._upsample(layer).sigmoid() for layer in logits.unbind(dim=1)]
        return {
            "cls": losses.focal(_two_classes(score), labels[:, None, None].to(score.dtype)),
            "seg": torch.stack([self._map_loss(map_, masks) for map_ in maps]).sum(),
        }

    def encode(self, batch: Batch | TrainingBatch, categories: Sequence[Category]) -> Encoded:
        """Run both towers on B images with a category each; differentiable. Raises NeedsCheckpoint."""
        network = self.ready()
        features = batch.features(self.encoder, self.request)
        frozen = features.embedding if self.request.cls else None
        if self.prompts_vision:
            tokens, embedding = self.prompted_pass(batch.images, self._prompts("visual", frozen))
        else:
            tokens, embedding = [features.tokens(layer) for layer in self.layers], features.embedding
        patches, token = network.project(tokens, embedding)
        return Encoded(unit(patches), unit(token), self.text_features(categories, frozen))

    def prompted_pass(self, images: Tensor, contexts: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Run the vision tower with prompts behind the patches, replaced before each of the first blocks (§Image side).

        images: [B, 3, S, S]; contexts: [B or 1, M, D] for blocks 1, 2, ... Returns the patch tokens [B, L, D] of every
        layer, and the image embedding [B, J] (§Image side).
        """
        encoder = self.encoder
        found = {}
        with encoder.autocast():
            x = encoder.tower.norm_pre(encoder.embed(images))
            length = x.shape[1]
            for layer, block in enumerate(encoder.blocks, start=1):
                if layer <= len(contexts):
                    context = contexts[layer - 1].expand(len(x), -1, -1)
                    x = torch.cat([x[:, :length], context], dim=1)
                x = block(x)
                if layer in self.layers:
                    found[layer] = x[:, encoder.prefixes : length].float()
        return [found[layer] for layer in self.layers], encoder.project(x[:, 0])

    def text_features(self, categories: Sequence[Category], frozen: Tensor | None) -> Tensor:
        """Return each image's own text features: unit rows [B, 2, J], normal and abnormal (§Text).

        frozen: [B, J] embeddings that the dynamic prompts come from. Raises UsageError for prompts that would take a
        sentence's end token.
        """
        contexts = self._prompts("text", frozen)[1:]  # block 1 reads the sentences as they are
        per_image = any(len(context) > 1 for context in contexts)
        rows = list(categories) if per_image else list(dict.fromkeys(categories))
        ids = torch.cat([self._sentences(category) for category in rows])
        ends = ids.argmax(dim=1)
        count = len(ids) // len(rows)
        vectors = [context.repeat_interleave(count, dim=0) if per_image else context for context in contexts]
        embeddings = self.text_tower.embed(ids[:, : int(ends.max()) + 1])
        sentences = unit(self.text_tower.encode_embeddings(embeddings, ends, deep_prompts(vectors)))
        normal = len(self.prompts.normal) * len(self.prompts.templates)
        states = sentences.unflatten(0, (-1, count)).split([normal, count - normal], dim=1)
        text = torch.stack([unit(state.mean(dim=1)) for state in states], dim=1)
        return text if per_image else text[[rows.index(category) for category in categories]]

    def patch_logits(self, encoded: Encoded) -> Tensor:
        """Return how much more each patch is like abnormal than like normal text: [B, l, L] (§Image side)."""
        return abnormal_logit(encoded.patches, encoded.text[:, None], self.config.logit_scale)

    def image_logit(self, encoded: Encoded, logits: Tensor, chosen: Tensor | None = None) -> Tensor:
        """Return the logit of the image score, from class token and clusters: [B] (§Semantic fusion, §Image score).

        logits: [B, l, L] of the patches; chosen: [B, n] patches in the order in which k-means shall see them, None for
        the most abnormal ones.
        """
        token, weight = encoded.token, self.config.cluster_weight
        if self.config.score in ("hsf", "hsf_paper"):
            token = unit(weight * self._clusters(encoded, logits.mean(dim=1), chosen) + (1 - weight) * token)
        return abnormal_logit(token[:, None], encoded.text, self.config.logit_scale)[:, 0]

    def _clusters(self, encoded: Encoded, logits: Tensor, chosen: Tensor | None) -> Tensor:
        """Return the unit vector [B, J] of the anomalous clusters; logits: [B, L] (§Semantic fusion)."""
        count, seed = self.config.clusters, self.config.cluster_seed
        if self.config.score == "hsf_paper":
            return fusion.abnormal_cluster(encoded.patches, logits.sigmoid(), count, seed)
        if chosen is None:
            chosen = fusion.most_abnormal(logits, count)
        return fusion.cluster_mean(encoded.patches, chosen, count, seed)

    def _prompts(self, tower: str, frozen: Tensor | None) -> list[Tensor]:
        contexts = self.ready().prompts(tower, frozen)
        return [context.half().float() for context in contexts] if self.config.half_prompts else contexts

    def _sentences(self, category: Category) -> Tensor:
        """Return the token ids of a category's sentences, normal before abnormal: [K, C]."""
        if category not in self._ids:
            noun = (category.name if self.config.noun == "raw" else category.noun).replace("-", " ")
            normal, abnormal = prompts.sentences(self.prompts, noun)
            with torch.inference_mode(False):  # cached for training too
                ids = self.text_tower.tokenize([*normal, *abnormal])
            first_end = int(ids.argmax(dim=1).min())
            if "text" in self.config.prompt_towers and self.config.prompt_length >= first_end:
                raise UsageError(
                    f"Option prompt_length is {self.config.prompt_length}, but a sentence about {noun!r} ends at token "
                    f"{first_end}, which prompts would overwrite. Choose at most {first_end - 1}."
                )
            self._ids[category] = ids
        return self._ids[category]

    def _upsample(self, logits: Tensor) -> Tensor:
        grid = logits.unflatten(1, (self.encoder.grid, self.encoder.grid))
        return resize_maps(grid, self.encoder.size, self.align_corners)

    def _map_loss(self, map_: Tensor, masks: Tensor) -> Tensor:
        focal = losses.focal(_two_classes(map_), masks)
        if self.config.dice == "rows":  # every row of pixels counts as an image, as in the code (§Training)
            map_, masks = map_.flatten(0, 1), masks.flatten(0, 1)
        return focal + losses.dice(map_, masks) + losses.dice(1 - map_, 1 - masks)


def _two_classes(probability: Tensor) -> Tensor:
    """Return normal and abnormal probability [B, 2, H, W] from the abnormal one [B, H, W]."""
    return torch.stack([1 - probability, probability], dim=1)
