"""What the demo encoder can do, measured on procedural images: class-token scores and a few dense paths.

The paths are short re-implementations for choosing and reporting weights; the benchmark's own methods are elsewhere.
"""

from __future__ import annotations

import cv2
import numpy as np
import open_clip
import torch
from demo_training.captions import Vocabulary
from demo_training.model import (
    LOGIT_SCALE,
    STAGE,
    encode_images,
    encode_texts,
    normalise_pixels,
    project,
    self_attended_values,
)
from demo_training.pool import GRID
from scipy.stats import rankdata
from torch import Tensor
from torch.nn import functional

from zsadbench.data import procedural

# The compositional prompt ensemble of WinCLIP (zsadbench/components/prompts.json, `winclip`).
NORMAL = ("{}", "flawless {}", "perfect {}", "unblemished {}")
NORMAL += ("{} without flaw", "{} without defect", "{} without damage")
ABNORMAL = ("damaged {}", "{} with flaw", "{} with defect", "{} with damage")
PHOTOS = ("cropped ", "close-up ", "bright ", "dark ", "jpeg corrupted ", "blurry ", "")
ENDINGS = ("small {}.", "large {}.", "{} for visual inspection.", "{} for anomaly detection.")
TEMPLATES = [f"a {kind}photo of {article} {{}}." for kind in PHOTOS for article in ("a", "the")]
TEMPLATES += [f"a photo of {article} {ending}" for ending in ENDINGS for article in ("a", "the")]


def auroc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Return the area under the ROC curve of scores [n] for boolean labels [n]; ties count one half."""
    positives = int(labels.sum())
    ranks = rankdata(scores)[labels].sum()
    return float((ranks - positives * (positives + 1) / 2) / (positives * (len(labels) - positives)))


def test_images(category: str, good: int, per_defect: int, first_seed: int) -> tuple[Tensor, np.ndarray, np.ndarray]:
    """Return images [N, 3, S, S] in 0..1, masks [N, S, S] and labels [N]; every image has a seed of its own."""
    kinds: list[str | None] = [None] * good
    for defect in procedural.defects(category):
        kinds += [defect] * per_defect
    rendered = [procedural.render(category, first_seed + number, kind) for number, kind in enumerate(kinds)]
    images = torch.from_numpy(np.stack([image for image, _ in rendered])).permute(0, 3, 1, 2).float() / 255
    return images, np.stack([mask for _, mask in rendered]), np.array([kind is not None for kind in kinds])


def prompt_features(model: open_clip.CLIP, vocabulary: Vocabulary, noun: str) -> Tensor:
    """Return unit-length features [2, D] of the normal and the abnormal prompt ensemble."""
    rows = []
    for states in (NORMAL, ABNORMAL):
        texts = [template.format(state.format(noun)) for state in states for template in TEMPLATES]
        rows.append(encode_texts(model, vocabulary.encode(texts)).mean(dim=0))
    return functional.normalize(torch.stack(rows), dim=-1)


@torch.no_grad()
def evaluate(
    model: open_clip.CLIP, vocabulary: Vocabulary, category: str, good: int, per_defect: int, first_seed: int
) -> dict[str, float]:
    """Return the image AUROC of the class token and the pixel AUROC of each dense path for one category."""
    images, masks, labels = test_images(category, good, per_defect, first_seed)
    texts = prompt_features(model, vocabulary, category)
    features = encode_images(model, images)
    layers, stages = _streams(model, images)
    maps = {"plain": _text_map(project(model, layers[-1]), texts), "value": _text_map(features.values, texts)}
    stage_maps = [_text_map(project(model, stage), texts) for stage in stages]
    maps |= {f"vv{number}": stage_map for number, stage_map in enumerate(stage_maps, start=1)}
    maps["vv_sum"] = torch.stack(stage_maps).sum(0)
    maps["windows"] = _window_map(model, images, texts)
    maps["mutual"] = torch.stack([_mutual_map(layers[index]) for index in (2, 5, 8, 11)]).mean(0)
    report = {"image": auroc(_abnormality(features.image, texts).numpy(), labels)}
    return report | {name: auroc(_upsample(path).ravel(), masks.ravel()) for name, path in maps.items()}


def _streams(model: open_clip.CLIP, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Return the patch tokens after every block and the summed v-v attention of every stage of three blocks."""
    tokens, layers, stages = model.visual._embeds(normalise_pixels(images)), [], []
    for number, block in enumerate(model.visual.transformer.resblocks):
        step = self_attended_values(block, tokens)[:, 1:]
        stages = [*stages, step] if number % STAGE == 0 else [*stages[:-1], stages[-1] + step]
        tokens = block(tokens)
        layers.append(tokens[:, 1:])
    return layers, stages


def _abnormality(features: Tensor, texts: Tensor) -> Tensor:
    """Return the softmax probability of the abnormal prompt."""
    return (LOGIT_SCALE * features @ texts.T).softmax(dim=-1)[..., 1]


def _text_map(features: Tensor, texts: Tensor) -> Tensor:
    """Return the difference of cosines, abnormal minus normal, at every patch."""
    return features @ (texts[1] - texts[0])


def _window_map(model: open_clip.CLIP, images: Tensor, texts: Tensor, side: int = 3) -> Tensor:
    """Return at every patch the mean score of the windows of `side` x `side` patches over it (as in WinCLIP)."""
    cells = torch.arange(GRID * GRID).reshape(GRID, GRID)
    windows = cells.unfold(0, side, 1).unfold(1, side, 1).reshape(-1, side * side)
    total, count = torch.zeros(len(images), GRID * GRID), torch.zeros(GRID * GRID)
    for window in windows:
        scores = _text_map(encode_images(model, images, window.expand(len(images), -1)).image, texts)
        total[:, window] += scores[:, None]
        count[window] += 1
    return total / count


def prompt_spread(model: open_clip.CLIP, vocabulary: Vocabulary, noun: str) -> float:
    """Return the mean cosine of pairs of abnormal prompts of one noun; 1 would mean that all prompts are the same."""
    texts = [template.format(state.format(noun)) for state in ABNORMAL for template in TEMPLATES]
    with torch.no_grad():
        features = encode_texts(model, vocabulary.encode(texts))
    return float((features @ features.T).mean())


def _mutual_map(tokens: Tensor) -> Tensor:
    """Return each patch's distance to its nearest patches in the other images, mean of the nearest 30 % of images.

    MuSc (Li et al., ICLR 2024), with neighbourhoods of one patch.
    """
    features = functional.normalize(tokens, dim=-1)
    count = len(features)
    nearest = [(2 - 2 * torch.einsum("nld,md->nlm", features, one)).amin(dim=-1) for one in features]
    distances = torch.stack(nearest, dim=-1)  # squared, [N, L, N]
    distances[torch.arange(count), :, torch.arange(count)] = torch.inf
    return distances.clamp(min=0).sqrt().sort(dim=-1).values[..., : round(0.3 * (count - 1))].mean(dim=-1)


def _upsample(patch_map: Tensor) -> np.ndarray:
    """Return maps [N, S, S] from patch maps [N, L]."""
    side, count = procedural.SIDE, round(patch_map.shape[1] ** 0.5)
    grids = patch_map.reshape(-1, count, count).numpy()
    return np.stack([cv2.resize(grid, (side, side), interpolation=cv2.INTER_LINEAR) for grid in grids])
