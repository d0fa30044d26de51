"""WinCLIP and WinCLIP+: windows of patches go through CLIP one by one and are compared with normal and abnormal text.

Paper: Jeong et al., "WinCLIP: Zero-/Few-Shot Anomaly Classification and Segmentation", CVPR 2023. It has no official
code; formulas and defaults follow zqhang/Accurate-WinCLIP-pytorch@eef4f8c (docs/methods/winclip.md).
Not reproduced: the paper's tiling of VisA and its own crops, whose details are unpublished (§Paper and code);
`multi_crop` is CLIP-AD's account of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from zsadbench.components.image_scores import crop_abnormal
from zsadbench.components.similarity import CategoryText, TextSource, abnormal_logit, nearest_distance, unit
from zsadbench.datasets import Category
from zsadbench.encoders.base import Encoder
from zsadbench.encoders.features import FeatureRequest, Features
from zsadbench.errors import OptionError, UsageError
from zsadbench.methods import Batch, EncoderConfig, Method, MethodCard, Prediction, register

PROMPT_LISTS = {
    "canonical22": "winclip",
    "zqhang21": "winclip_zqhang21",
}  # option -> list in zsadbench.components.prompts
TOKENS_PER_PASS = 2**13  # window tokens encoded at once; bounds the memory of a pass, whatever the batch
SMALLEST = 1e-100  # floor of values in a harmonic mean: a value of 0 gives a mean of 0, not NaN


@dataclass(frozen=True)
class WinClipConfig(EncoderConfig):
    """Options; sources are sections of docs/methods/winclip.md."""

    encoder: str = "open_clip:ViT-B-16-plus-240/laion400m_e31"  # §Encoder
    window_scales: tuple[int, ...] = (2, 3)  # window sides in patches, stride 1 (§Windows)
    include_image_scale: bool = True  # the whole image is one more scale of the map (§Map)
    templates: Literal["canonical22", "zqhang21"] = "zqhang21"  # as in §Published numbers
    temperature: float = 0.07  # zqhang, anomalib; 0.01 in mala-lab, caoyunkang (§Choices)
    text_ensemble: Literal["mean_raw", "mean"] = "mean_raw"  # mean: each sentence scaled to length 1 first (§Text)
    noun: Literal["raw", "readable"] = "raw"  # folder name, or the dataset's noun (§Text)
    multi_crop: bool = False  # average the image probability with that of ten crops, as CLIP-AD did (§Paper and code)
    shots: int = 0  # normal reference images: 0 is WinCLIP, more is WinCLIP+ (§Map)
    few_shot_fusion: Literal["sum", "mean"] = "sum"  # of the two maps; the same ranking (§Map)
    align_corners: bool = False  # §Map
    sigma: float = 0.0  # §Smoothing


class Views(NamedTuple):
    """What is compared with text and references, as unit vectors: windows in the joint space, patches as they are."""

    windows: tuple[Tensor, ...]  # one a scale: [B, windows, J]
    patches: Tensor | None  # last block, without final norm and projection: [B, L, D]; None for WinCLIP without "+"


@register
class WinClip(Method):
    """Zero-shot by default; with `shots`, `remember` takes the references of the next category."""

    card = MethodCard(
        title="WinCLIP",
        reference="Jeong et al., CVPR 2023",
        scope="image",
        code="zqhang/Accurate-WinCLIP-pytorch@eef4f8c",
        notes="No official code exists: follows a re-implementation. The paper's crops and tiling are unpublished. "
        "With references, patches are compared before the final norm, as there; anomalib takes them after it.",
    )
    presets = {
        "zero_shot": WinClipConfig(),
        "1shot": WinClipConfig(shots=1),
        "2shot": WinClipConfig(shots=2),
        "4shot": WinClipConfig(shots=4),
    }

    @classmethod
    def reads_text(cls, config: WinClipConfig) -> bool:
        """Tell that it does, whatever the options."""
        return True

    def __init__(self, config: WinClipConfig, encoder: Encoder, text: TextSource | None = None) -> None:
        """Prepare the windows; `text` replaces prompts and text tower. Raises WeightsError, OptionError."""
        super().__init__(config, encoder)
        self.text = text or CategoryText(
            encoder, PROMPT_LISTS[config.templates], noun=config.noun, ensemble=config.text_ensemble
        )
        self.shots, self.align_corners, self.sigma = config.shots, config.align_corners, config.sigma
        patches = {encoder.depth} if config.shots else ()
        self.request = FeatureRequest(cls=True, embedded=True, tokens=frozenset(patches))
        _check_scales(config, encoder)
        self.positions = [window_positions(encoder.grid, k).to(encoder.device) for k in config.window_scales]
        self.covers = [cover_matrix(positions, encoder.grid**2) for positions in self.positions]
        self.memory: tuple[Category, Views] | None = None

    def remember(self, references: Batch) -> None:
        """Keep the views of the normal reference images of the next category."""
        self.memory = references.category, self.views(references.features(self.encoder, self.request))

    def predict(self, batch: Batch) -> Prediction:
        """Score B images of one category: scores [B], maps [B, g, g] on the patch grid."""
        features = batch.features(self.encoder, self.request)
        views, text = self.views(features), self.text(batch.category)
        image = abnormal_logit(unit(features.embedding), text, 1 / self.config.temperature).sigmoid()
        maps = self.zero_shot_maps(views, image, text)
        score = image
        if self.config.multi_crop:
            crops = crop_abnormal(self.encoder, batch.images, text, 1 / self.config.temperature)
            score = (image + crops) / 2
        if not self.shots:
            return Prediction(score, maps)
        association = self.association(views, batch.category)
        scores = (score + association.amax(dim=(1, 2))) / 2
        fused = maps + association
        return Prediction(scores, fused if self.config.few_shot_fusion == "sum" else fused / 2)

    def views(self, features: Features) -> Views:
        """Encode every window of every scale, each as the class token and its own patches alone (§Windows)."""
        windows = tuple(self.encode_windows(features.embedded, positions) for positions in self.positions)
        return Views(windows, unit(features.tokens(self.encoder.depth)) if self.shots else None)

    def encode_windows(self, embedded: Tensor, positions: Tensor) -> Tensor:
        """Encode windows of tokens [B, P + L, D] at patch positions [windows, k * k]: unit vectors [B, windows, J]."""
        prefix = torch.arange(self.encoder.prefixes, device=positions.device).expand(len(positions), -1)
        sequences = embedded[:, torch.cat([prefix, positions + self.encoder.prefixes], dim=1)].flatten(0, 1)
        parts = sequences.split(max(1, TOKENS_PER_PASS // sequences.shape[1]))
        encoded = torch.cat([self.encoder.encode_tokens(part) for part in parts])
        windows: Tensor = unit(encoded.float()).unflatten(0, (len(embedded), len(positions)))
        return windows

    def zero_shot_maps(self, views: Views, image: Tensor, text: Tensor) -> Tensor:
        """Return the harmonic mean of all scales' abnormal probabilities: [B, g, g] float32 (§Map).

        `image` [B] is the probability of the whole image, `text` [2, J] the features of the category.
        """
        logits = [abnormal_logit(windows, text, 1 / self.config.temperature) for windows in views.windows]
        scales = [aggregate(logit.double().sigmoid(), cover) for logit, cover in zip(logits, self.covers, strict=True)]
        if self.config.include_image_scale:
            scales.append(image.double()[:, None].expand_as(scales[0]))
        return self._to_grid(harmonic_mean(torch.stack(scales)))

    def association(self, views: Views, category: Category) -> Tensor:
        """Return the distance of each patch to the references, a mean over scales: [B, g, g] float32, 0 to 1 (§Map)."""
        if self.memory is None or self.memory[0] != category:
            raise UsageError(
                f"{self.name or 'winclip'} with shots={self.shots} knows no references of category {category.name!r}; "
                "expected remember(references) before predict(batch)."
            )
        _, memory = self.memory
        scales = [
            aggregate(nearest_distance(windows, remembered.flatten(0, 1)) / 2, cover)
            for windows, remembered, cover in zip(views.windows, memory.windows, self.covers, strict=True)
        ]
        assert views.patches is not None and memory.patches is not None  # with shots, `views` returns them
        scales.append(nearest_distance(views.patches, memory.patches.flatten(0, 1)).double() / 2)
        return self._to_grid(torch.stack(scales).mean(dim=0))

    def _to_grid(self, patches: Tensor) -> Tensor:
        grid: Tensor = patches.float().unflatten(1, (self.encoder.grid, self.encoder.grid))
        return grid


def window_positions(grid: int, scale: int) -> Tensor:
    """Return the patch indices of all scale x scale windows of a grid x grid image: [windows, scale ** 2] int64.

    Windows, and the patches in them, are in row-major order.
    """
    patches = torch.arange(grid**2).view(grid, grid)
    return patches.unfold(0, scale, 1).unfold(1, scale, 1).reshape(-1, scale**2)


def cover_matrix(positions: Tensor, patches: int) -> Tensor:
    """Return 1 where a window covers a patch, else 0: positions [windows, k * k] -> [windows, patches] float64."""
    cover = torch.zeros(len(positions), patches, dtype=torch.float64, device=positions.device)
    return cover.scatter_(1, positions, 1.0)


def aggregate(values: Tensor, cover: Tensor) -> Tensor:
    """Return the harmonic mean of the windows over each patch: [B, windows], cover [windows, L] -> [B, L] float64.

    n_i / sum over the n_i windows around patch i of 1 / value (docs/methods/winclip.md, §Map).
    """
    return cover.sum(dim=0) / (1 / values.double().clamp_min(SMALLEST) @ cover)


def harmonic_mean(values: Tensor) -> Tensor:
    """Return the harmonic mean over the first dimension of values [n, ...] in 0..1: [...]."""
    return len(values) / (1 / values.clamp_min(SMALLEST)).sum(dim=0)


def _check_scales(config: WinClipConfig, encoder: Encoder) -> None:
    if not config.window_scales or not all(1 <= scale <= encoder.grid for scale in config.window_scales):
        raise OptionError(
            f"winclip.window_scales is {config.window_scales}; expected window sides between 1 and {encoder.grid}, the "
            f"patch grid of {encoder.spec} at {encoder.size} pixels. Set smaller scales or a larger size."
        )
