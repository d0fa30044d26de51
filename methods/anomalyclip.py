"""AnomalyCLIP: learned prompts that name no class, deep text prompts, and a local path of value-value attention (DPAM).

Paper: Zhou et al., "AnomalyCLIP: Object-agnostic Prompt Learning for Zero-shot Anomaly Detection", ICLR 2024, arXiv
2310.18961; code read: zqhang/AnomalyCLIP@45ed4dd (docs/methods/anomalyclip.md). Not reproduced: the maps of four
layers that were all the last one's (presets multi_* sum four real ones, §Paper and code), repeated resizing of position
embeddings. Official checkpoints bring their own embeddings of the prompts' words, which are CLIP's: ours are read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from zsadbench.components import losses
from zsadbench.components.postprocess import resize_maps
from zsadbench.components.prompt_learning import deep_prompts, placeholders, splice
from zsadbench.components.similarity import abnormal_logit, text_tower, unit
from zsadbench.encoders.base import Encoder
from zsadbench.encoders.features import FeatureRequest, Features
from zsadbench.errors import OptionError
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

ENDINGS = ("object.", "damaged object.")  # of the normal and the abnormal sentence (§Text)
CHECKPOINT_KEY = "prompt_learner"  # where the official .pth keeps the tensors (§Checkpoints)
UNREAD = ("token_prefix_", "token_suffix_", "tokenized_prompts_", "compound_prompt_projections.")  # (§Checkpoints)


@dataclass(frozen=True)
class AnomalyClipConfig(EncoderConfig):
    """Options; sources are sections of docs/methods/anomalyclip.md."""

    encoder: str = "open_clip:ViT-L-14-336/openai"  # §Encoder
    size: int | None = 518  # §Encoder
    activation: Literal["gelu", "quickgelu"] | None = "quickgelu"  # §Encoder
    pos_embed: Literal["bicubic_antialias", "bicubic", "bilinear"] = "bilinear"  # §Encoder
    layers: tuple[int, ...] | None = None  # whose maps are summed; None: `stages` at equal depth
    stages: int = 1  # 1 is the last layer, as published; 4 is 6,12,18,24 of 24 (§Paper and code, §Choices)
    dpam_blocks: int | None = None  # last blocks with a local path, 0: none; None: from a quarter on (§Image side)
    context: int = 12  # learned vectors of a sentence (§Text)
    deep_depth: int | None = None  # text blocks that read learned vectors; None: three quarters, 9 of 12 (§Text)
    deep_length: int = 4  # learned vectors that each of these reads, the first aside (§Text)
    half_deep_prompts: bool = True  # round those through float16, as the code does (§Paper and code)
    image_norm: bool = False  # final norm before the class token's projection; the code has none (§Image side)
    temperature: float = 0.07  # §Map, §Image score
    local_weight: float = 4.0  # of the maps' losses, lambda (§Training)
    align_corners: bool = False  # §Map
    sigma: float = 4.0  # §Smoothing
    trained_on: str = "visa"  # dataset of the checkpoint
    recipe: TrainRecipe = TrainRecipe((Stage(epochs=15, lr=1e-3, betas=(0.5, 0.999)),), batch_size=8)  # §Training


@register
class AnomalyClip(TrainableMethod):
    """One normal and one abnormal sentence for all classes; presets name the dataset that they were trained on.

    Of the official folders, 9_12_4_multiscale is `visa` and 9_12_4_multiscale_visa is `mvtec` (§Checkpoints).
    """

    card = MethodCard(
        title="AnomalyCLIP",
        reference="Zhou et al., ICLR 2024, arXiv 2310.18961",
        scope="image",
        code="zqhang/AnomalyCLIP@45ed4dd",
        notes="The published results are those of the last layer alone; the image embedding skips CLIP's "
        "final norm, as in the code. Official folders are named after the dataset that was tested, not trained on.",
    )
    presets = {
        "visa": AnomalyClipConfig(),
        "mvtec": AnomalyClipConfig(trained_on="mvtec"),
        "multi_visa": AnomalyClipConfig(stages=4),
        "multi_mvtec": AnomalyClipConfig(stages=4, trained_on="mvtec"),
        "238px_visa": AnomalyClipConfig(size=238),  # CLIP-AD's tables print it for 240 pixels; patches have 14
        "238px_mvtec": AnomalyClipConfig(size=238, trained_on="mvtec"),
        "demo": AnomalyClipConfig(
            encoder="demo",
            size=None,
            activation=None,
            dpam_blocks=1,  # through more of them the words alone find the demo's defects, and training shows nothing
            sigma=1.0,  # pixels of a small map
            trained_on="demo.train",
            recipe=TrainRecipe((Stage(epochs=4, lr=3e-3, betas=(0.5, 0.999)),), batch_size=8),
        ),
    }
    free_options = frozenset({"sigma"})

    trained: PromptLearner | None = None

    @classmethod
    def reads_text(cls, config: AnomalyClipConfig) -> bool:
        """Tell that it does, whatever the options."""
        return True

    def __init__(self, config: AnomalyClipConfig, encoder: Encoder) -> None:
        """Choose layers and blocks. Raises WeightsError without a text tower, OptionError for what does not fit it."""
        super().__init__(config, encoder)
        self.text = text_tower(encoder)
        self.layers = config.layers or encoder.stages(config.stages)
        blocks = encoder.depth - encoder.depth // 4 + 1 if config.dpam_blocks is None else config.dpam_blocks
        self.first = encoder.depth - blocks + 1  # block where the local path starts
        self.deep_depth = -(-self.text.depth * 3 // 4) if config.deep_depth is None else config.deep_depth
        _check(blocks, "dpam_blocks", range(encoder.depth + 1))
        _check(self.deep_depth, "deep_depth", range(1, self.text.depth + 1))
        _check(config.deep_length, "deep_length", range(1, config.context + 1))
        self.request = self._request()
        self.align_corners, self.sigma = config.align_corners, config.sigma
        self._known: tuple[Tensor, Tensor] | None = None  # weights, and the text features that they give

    def new_module(self) -> PromptLearner:
        """Return the learned vectors (§Text)."""
        return PromptLearner(self.config.context, self.deep_depth - 1, self.config.deep_length, self.text.width)

    def draw(self, module: PromptLearner, generator: torch.Generator) -> None:
        """Draw all vectors from N(0, 0.02^2) (§Text)."""
        for parameter in module.parameters():
            nn.init.normal_(parameter, std=0.02, generator=generator)

    def own_names(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Take the learned vectors alone, or from below the official `prompt_learner`, without what is never read."""
        named = {key.removeprefix(f"{CHECKPOINT_KEY}."): tensor for key, tensor in tensors.items()}
        return {key: tensor for key, tensor in named.items() if not key.startswith(UNREAD)}

    def predict(self, batch: Batch) -> Prediction:
        """Score B images: scores [B] in 0..1, maps [B, g, g] in 0..number of layers (§Map, §Image score)."""
        features, text = batch.features(self.encoder, self.request), self.text_features()
        maps = torch.stack(self.patch_probabilities(features, text)).sum(dim=0)
        return Prediction(self.image_logits(features, text).softmax(dim=1)[:, 1], maps)

    def loss(self, batch: TrainingBatch, labels: Tensor, masks: Tensor, stage: str = "") -> dict[str, Tensor]:
        """Return the cross-entropy of the image score, and weighted focal and Dice losses of all maps (§Training)."""
        features, text = batch.features(self.encoder, self.request), self.encode_prompts()
        maps = [
            resize_maps(grid, self.encoder.size, self.align_corners)
            for grid in self.patch_probabilities(features, text)
        ]
        focal = sum(losses.focal(torch.stack([1 - map_, map_], dim=1), masks) for map_ in maps)
        dice = sum(losses.dice(map_, masks) + losses.dice(1 - map_, 1 - masks) for map_ in maps)
        return {
            "image": functional.cross_entropy(self.image_logits(features, text), labels),
            "focal": self.config.local_weight * focal,
            "dice": self.config.local_weight * dice,
        }

    @torch.no_grad()
    def text_features(self) -> Tensor:
        """Return `encode_prompts()`, computed once for given weights. Raises NeedsCheckpoint."""
        weights = torch.cat([parameter.flatten() for parameter in self.ready().parameters()])
        if self._known is None or not torch.equal(self._known[0], weights):
            self._known = weights, self.encode_prompts()
        return self._known[1]

    def encode_prompts(self) -> Tensor:
        """Return the unit text features [2, J] [normal, abnormal] of all images; differentiable (§Text).

        Raises NeedsCheckpoint.
        """
        learner = self.ready()
        ids = self.text.tokenize([placeholders(self.config.context, ending) for ending in ENDINGS])
        prompts = splice(self.text.embed(ids), torch.cat([learner.ctx_pos, learner.ctx_neg])[:, 0])
        deep = [
            vectors.half() if self.config.half_deep_prompts else vectors for vectors in learner.compound_prompts_text
        ]
        return unit(self.text.encode_embeddings(prompts, ids.argmax(dim=1), deep_prompts(deep)))

    def image_logits(self, features: Features, text: Tensor) -> Tensor:
        """Return the scaled cosines of the images with text [2, J]: [B, 2] [normal, abnormal] (§Image score)."""
        logits: Tensor = unit(self.image_embedding(features)) @ text.T / self.config.temperature
        return logits

    def image_embedding(self, features: Features) -> Tensor:
        """Return the projected class token, as a rule without the norm that CLIP has there: [B, J] (§Image side)."""
        if self.config.image_norm:
            return features.embedding
        projection = self.encoder.tower.projection
        with self.encoder.autocast():
            return features.class_token if projection is None else projection(features.class_token).float()

    def patch_probabilities(self, features: Features, text: Tensor) -> list[Tensor]:
        """Return the patches' abnormal probability, one [B, g, g] a layer; the softmax precedes upsampling (§Map)."""
        patches = [self.encoder.project(self.local_tokens(features, layer)) for layer in self.layers]
        logits = [abnormal_logit(unit(tokens), text, 1 / self.config.temperature) for tokens in patches]
        return [logit.sigmoid().unflatten(1, (self.encoder.grid, self.encoder.grid)) for logit in logits]

    def local_tokens(self, features: Features, layer: int) -> Tensor:
        """Return the patch tokens of the local path after a block, else of CLIP: [B, L, D] (§Image side)."""
        if layer < self.first:
            return features.tokens(layer)
        return features.vv_path(self.first, layer)[:, self.encoder.prefixes :]

    def _request(self) -> FeatureRequest:
        return FeatureRequest(
            tokens={layer for layer in self.layers if layer < self.first},
            vv_path={(self.first, layer) for layer in self.layers if layer >= self.first},
            cls=True,
        )


class PromptLearner(nn.Module):
    """The learned vectors under the official names (§Checkpoints)."""

    def __init__(self, context: int, deep: int, deep_length: int, width: int) -> None:
        """Make `context` vectors of each sentence, and `deep` times `deep_length` that both share."""
        super().__init__()
        self.ctx_pos = nn.Parameter(torch.empty(1, 1, context, width))
        self.ctx_neg = nn.Parameter(torch.empty(1, 1, context, width))
        self.compound_prompts_text = nn.ParameterList(torch.empty(deep_length, width) for _ in range(deep))


def _check(value: int, name: str, possible: Sequence[int]) -> None:
    if value not in possible:
        raise OptionError(f"anomalyclip.{name} is {value}; expected {possible[0]} to {possible[-1]} with this encoder.")
