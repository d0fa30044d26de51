"""FiSeCLIP: the images of a small batch are references of each other, without the patches that text calls anomalous.

Paper: "FiSeCLIP", ICCV Workshops 2025, arXiv 2507.11003. No code was ever released (ybai111/FiSeCLIP@eb50d5d is empty):
everything follows the text of the paper, and each of its ambiguities is an option (docs/methods/fiseclip.md, §Choices).
SeCLIP is the text branch, FiCLIP the matching; without filtering FiCLIP is the method `musc` on groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from zsadbench.components import mutual
from zsadbench.components.postprocess import resize_maps
from zsadbench.components.similarity import CategoryText, TextSource, abnormal_logit, unit
from zsadbench.encoders.base import Encoder
from zsadbench.encoders.features import FeatureRequest, Features
from zsadbench.errors import OptionError
from zsadbench.methods import Batch, EncoderConfig, Method, MethodCard, Prediction, Scope, register

Step = tuple[int, int]  # one matching: layer, side of the neighbourhood
Filtering = Literal["none", "text", "neighbourhoods", "neighbourhoods_reversed", "layers", "steps"]


@dataclass(frozen=True)
class FiseclipConfig(EncoderConfig):
    """Options; A1 to A18 are the ambiguities of docs/methods/fiseclip.md, §Choices."""

    encoder: str = "open_clip:ViT-L-14-336/openai"  # §Encoder
    size: int | None = 518  # §Encoder
    activation: Literal["gelu", "quickgelu"] | None = "gelu"  # unknown: as in MuSc's code (§Encoder)
    pos_embed: Literal["bicubic_antialias", "bicubic", "bilinear"] = "bicubic"  # unknown: as in MuSc's code (§Encoder)
    attention: Literal["proxy", "vv", "qq", "kk"] = "proxy"  # of the last block in SeCLIP (§SeCLIP, Table 5)
    proxy_depth: float = 0.5  # the block that lends its attention, as a share of the depth: 12 of 24 (Table 5: 3 to 24)
    proxy_heads: Literal["mean", "per_head"] = "mean"  # A11: one attention for all heads, or each its own
    temperature: float = 100.0  # A5: of cosines with text
    noun: Literal["raw", "readable"] = "readable"  # A13: folder name, or the dataset's noun
    layers: tuple[int, ...] | None = None  # None: four at equal depth, 6,12,18,24 of 24 blocks (§Encoder)
    neighbourhoods: tuple[int, ...] = (1, 3, 5)  # A17: sides r of the patch neighbourhoods that are averaged
    batch_images: int = 2  # A1: images that are references of each other
    references: Literal["mean", "min"] = "mean"  # A3: over several references
    filtering: Filtering = "neighbourhoods"  # when masks change (Algorithm 1, Table 2; see `rounds`)
    lambda_: float = 1.1  # A6: text masks a patch when P(abnormal) > lambda P(normal)
    mu: float = 0.57  # A6, A8: distances above it keep a patch masked
    vote: Literal["and", "or"] = "and"  # A7: of the mask and the distances
    fusion: Literal["mean", "half", "fi", "se"] = "mean"  # A14: of the maps; fi and se: one branch alone
    image_score: Literal["class_token_and_map", "map"] = "class_token_and_map"  # A15; map: FiCLIP alone
    align_corners: bool = True  # A16
    sigma: float = 0.0  # A16


class Matching(NamedTuple):
    """The result of FiCLIP for B images."""

    scores: Tensor  # mean distance over layers of each neighbourhood, in their order: [R, B, L]
    masks: Tensor  # True: no reference; the first from text, then one after each round: [1 + rounds, B, L] bool


@register
class Fiseclip(Method):
    """SeCLIP masks patches; FiCLIP scores patches by the unmasked patches of the batch and votes on the masks."""

    card = MethodCard(
        title="FiSeCLIP",
        reference="ICCV Workshops 2025, arXiv 2507.11003",
        scope="batch",
        notes="Re-implementation from the paper, no reference code: fusion, image score, vote and proxy heads are "
        "inferred. Results depend on which images share a batch.",
    )
    presets = {
        "full": FiseclipConfig(),
        "se": FiseclipConfig(fusion="se"),
        "fi": FiseclipConfig(fusion="fi", image_score="map"),
        "fi_unfiltered": FiseclipConfig(fusion="fi", image_score="map", filtering="none"),
    }

    text: TextSource  # where the options read text

    @classmethod
    def reads_text(cls, config: FiseclipConfig) -> bool:
        """Tell whether SeCLIP's map or the class token is compared with text; unfiltered FiCLIP does without."""
        return config.fusion != "fi" or config.filtering != "none" or config.image_score != "map"

    def __init__(self, config: FiseclipConfig, encoder: Encoder, text: TextSource | None = None) -> None:
        """Choose the layers; `text` replaces prompts and text tower. Raises WeightsError, OptionError."""
        super().__init__(config, encoder)
        _check(config)
        self.matches = config.fusion != "se"
        self.filters = self.matches and config.filtering != "none"
        self.reads_map = self.filters or config.fusion != "fi"  # whether anything uses SeCLIP's map
        self.reads_class_token = config.image_score != "map"
        if text is not None or self.reads_text(config):
            self.text = text or CategoryText(encoder, "fiseclip", noun=config.noun)
        self.layers = config.layers or encoder.stages(4)
        self.proxy_layer = max(1, int(config.proxy_depth * encoder.depth + 0.5))
        self.request = self._request()
        self.align_corners, self.sigma = config.align_corners, config.sigma
        self.batch_images = config.batch_images if self.matches else None

    @property
    def scope(self) -> Scope:
        """The batch, or the image for SeCLIP alone."""
        return "batch" if self.matches else "image"

    def predict(self, batch: Batch) -> Prediction:
        """Score B images of a category: scores [B], maps [B, g, g]. Raises UsageError where matching sees one image."""
        features = batch.features(self.encoder, self.request)
        maps = self.patch_scores(features, batch).unflatten(1, (self.encoder.grid, self.encoder.grid))
        scores = resize_maps(maps, self.encoder.size, self.align_corners).amax(dim=(1, 2))  # A15
        if self.reads_class_token:
            scores = scores + self.probability(unit(features.embedding), self.text(batch.category))
        return Prediction(scores, maps)

    def patch_scores(self, features: Features, batch: Batch) -> Tensor:
        """Return the scores of all patches, of the branches that the options choose: [B, L] (§Map)."""
        if not self.reads_map:
            return self.match(features, batch, None).scores.mean(dim=0)
        semantic = self.semantic(features, self.text(batch.category))
        return self.fuse(semantic, self.match(features, batch, semantic).scores) if self.matches else semantic

    def probability(self, features: Tensor, text: Tensor) -> Tensor:
        """Return the abnormal probability of unit features [..., J] with unit text [2, J]: [...]."""
        return abnormal_logit(features, text, self.config.temperature).sigmoid()

    def semantic(self, features: Features, text: Tensor) -> Tensor:
        """Return SeCLIP's map, the abnormal probability of each patch: [B, L] (§SeCLIP)."""
        return self.probability(self.local_features(features), text)

    def local_features(self, features: Features) -> Tensor:
        """Return the last block's attention branch in the joint space, as unit vectors: [B, L, J] (§SeCLIP, A12)."""
        if self.config.attention == "proxy":
            branch = self.borrowed_attention(features)
        else:
            by_name = {"vv": features.vv, "qq": features.qq, "kk": features.kk}
            branch = by_name[self.config.attention](self.encoder.depth)[:, self.encoder.prefixes :]
        return unit(self.encoder.project(branch))

    def borrowed_attention(self, features: Features) -> Tensor:
        """Return the patch rows of Proj(attention of the proxy block, values of the last): [B, L, D] (eq. 2, 5).

        The attention is computed again from the block's input: kept by the pass, it would take [heads, T, T] an image.
        """
        proxy, last = self.encoder.blocks[self.proxy_layer - 1], self.encoder.blocks[-1]
        with self.encoder.autocast():
            queries, keys, _ = proxy.qkv(proxy.norm1(_stream(features, self.proxy_layer - 1)))
            _, _, values = last.qkv(last.norm1(_stream(features, self.encoder.depth - 1)))
            queries = queries[:, :, self.encoder.prefixes :]
            patches: Tensor
            if self.config.proxy_heads == "per_head":
                patches = last.attend(queries, keys, values)
            else:
                images = zip(queries.split(1), keys.split(1), values.split(1), strict=True)  # one by one: bounds memory
                means = [proxy.attention(q, k).mean(dim=1, keepdim=True) @ v for q, k, v in images]
                patches = last.out(torch.cat(means))
        return patches

    def match(self, features: Features, batch: Batch, semantic: Tensor | None) -> Matching:
        """Score the patches by those of the other images, in rounds that vote on the masks (§Map, Algorithm 1).

        semantic: SeCLIP's map [B, L], from which the first masks come; None without filtering.
        """
        others = mutual.other_images(batch.paths, self.name or "fiseclip")
        tokens = {layer: mutual.normalise(features.tokens(layer)) for layer in self.layers}
        found: dict[Step, Tensor] = {}
        masks = [self.no_masks(len(batch)) if semantic is None or not self.filters else self.first_masks(semantic)]
        for steps in rounds(self.config.filtering, self.layers, self.config.neighbourhoods):
            for layer, side in steps:
                nearest = mutual.nearest_similarities(mutual.aggregate(tokens[layer], side), masks[-1])
                found[layer, side] = mutual.over_others(mutual.distance(nearest), others, self.config.references)
            inter = torch.stack([found[step] for step in steps]).mean(dim=0) > self.config.mu
            masks.append(vote(masks[-1], inter, self.config.vote))
        by_side = [torch.stack([found[layer, side] for layer in self.layers]) for side in self.config.neighbourhoods]
        return Matching(torch.stack(by_side).mean(dim=1), torch.stack(masks))

    def first_masks(self, semantic: Tensor) -> Tensor:
        """Return where text calls a patch anomalous: [B, L] -> [B, L] bool (eq. 9)."""
        masks: Tensor = semantic > self.config.lambda_ * (1 - semantic)
        return masks

    def no_masks(self, count: int) -> Tensor:
        """Return masks of `count` images that mark no patch: [count, L] bool."""
        return torch.zeros(count, self.encoder.grid**2, dtype=torch.bool, device=self.encoder.device)

    def fuse(self, semantic: Tensor, scores: Tensor) -> Tensor:
        """Return the final patch scores of SeCLIP's [B, L] and FiCLIP's [R, B, L]: [B, L] (A14)."""
        if self.config.fusion == "mean":
            return torch.cat([semantic[None], scores]).mean(dim=0)
        matching = scores.mean(dim=0)
        return (semantic + matching) / 2 if self.config.fusion == "half" else matching

    def _request(self) -> FeatureRequest:
        depth = self.encoder.depth
        request = FeatureRequest(tokens=self.layers if self.matches else (), cls=self.reads_class_token)
        if not self.reads_map:
            return request
        needs = {
            "proxy": FeatureRequest(tokens={self.proxy_layer - 1, depth - 1}),
            "vv": FeatureRequest(vv={depth}),
            "qq": FeatureRequest(qq={depth}),
            "kk": FeatureRequest(kk={depth}),
        }
        return request | needs[self.config.attention]


def rounds(filtering: Filtering, layers: Sequence[int], sides: Sequence[int]) -> list[list[Step]]:
    """Return the steps (layer, side) of each round; masks change after a round (Table 2).

    "neighbourhoods" is Algorithm 1: one round a side, over all layers. "layers" swaps the loops; "steps" is a single
    loop, one step a round. "none" and "text" never change the masks.
    """
    by_side = [[(layer, side) for layer in layers] for side in sides]
    every = [step for steps in by_side for step in steps]
    orders: dict[str, list[list[Step]]] = {
        "none": [every],
        "text": [every],
        "neighbourhoods": by_side,
        "neighbourhoods_reversed": by_side[::-1],
        "layers": [[(layer, side) for side in sides] for layer in layers],
        "steps": [[step] for step in every],
    }
    return orders[filtering]


def vote(masks: Tensor, inter: Tensor, rule: Literal["and", "or"]) -> Tensor:
    """Return the masks after a round: [B, L] bool of what was masked and what the distances would mask (A7)."""
    return masks & inter if rule == "and" else masks | inter


def _stream(features: Features, layer: int) -> Tensor:
    """Return the residual stream after block `layer`, prefix tokens first: [B, T, D]."""
    return torch.cat([features.prefix(layer), features.tokens(layer)], dim=1)


def _check(config: FiseclipConfig) -> None:
    if any(r < 1 or r % 2 == 0 for r in config.neighbourhoods) or not config.neighbourhoods:
        raise OptionError(f"fiseclip.neighbourhoods is {config.neighbourhoods}; expected odd sides, such as 1,3,5.")
    if config.batch_images < 2:
        raise OptionError(f"fiseclip.batch_images is {config.batch_images}; expected at least 2 images to compare.")
    if not 0 < config.proxy_depth <= 1:
        raise OptionError(
            f"fiseclip.proxy_depth is {config.proxy_depth}; expected a share of the depth above 0 and up to 1, such as "
            "0.5 for block 12 of 24."
        )
