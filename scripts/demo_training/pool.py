"""Training images: a pool of rendered twins, and batches of them under the conditions that captions speak of."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import torch
from demo_training.captions import CONDITIONS
from numpy.typing import NDArray
from torch import Tensor

from zsadbench.data import procedural
from zsadbench.data.procedural.objects import PAINTERS as OBJECTS

GRID = procedural.SIDE // 8
CONDITION_ODDS = np.array([0.58, 0.06, 0.06, 0.06, 0.06, 0.06, 0.06, 0.06])


class Twins(NamedTuple):
    """One entry of the pool."""

    category: str
    defect: str
    pixels: NDArray[np.uint8]  # [S, S, 7] clean RGB, defective RGB, mask (0 or 255)


class TwinBatch(NamedTuple):
    """A training batch; the first half of `images` is flawless, the second half its defective twins."""

    images: Tensor  # [2B, 3, S, S] float32 in 0..1
    masks: Tensor  # [B, GRID * GRID] float32, share of each patch that is defective
    categories: list[str]
    conditions: list[str]
    defects: list[str]


def render_pool(per_category: int, first_seed: int) -> list[Twins]:
    """Render twins of every training category, its defects in turn; objects, the harder ones, twice as many."""
    pool = []
    for category in procedural.TRAIN_CATEGORIES:
        kinds = procedural.defects(category)
        for number in range(per_category * (2 if category in OBJECTS else 1)):
            defect = kinds[number % len(kinds)]
            clean, defective, mask = procedural.render_twins(category, first_seed + number, defect)
            pixels = np.dstack([clean, defective, mask.astype(np.uint8) * 255])
            pool.append(Twins(category, defect, pixels))
    return pool


def draw_batch(pool: list[Twins], size: int, rng: np.random.Generator) -> TwinBatch:
    """Draw `size` twins, each turned, recoloured and put under a random condition; twins are treated alike."""
    chosen = [pool[index] for index in rng.integers(len(pool), size=size)]
    conditions = [str(rng.choice(CONDITIONS, p=CONDITION_ODDS)) for _ in chosen]
    augmented = [_augment(twins.pixels, condition, rng) for twins, condition in zip(chosen, conditions, strict=True)]
    stack = torch.from_numpy(np.stack(augmented)).permute(0, 3, 1, 2).contiguous()
    masks = torch.nn.functional.adaptive_avg_pool2d(stack[:, 6], GRID).flatten(1)
    images = torch.cat([stack[:, :3], stack[:, 3:6]])
    return TwinBatch(images, masks, [t.category for t in chosen], conditions, [t.defect for t in chosen])


def _augment(pixels: NDArray[np.uint8], condition: str, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return [S, S, 7] float32 in 0..1."""
    picture = np.rot90(pixels, rng.integers(4))
    picture = (picture[:, ::-1] if rng.random() < 0.5 else picture).astype(np.float32) / 255
    picture = _zoom(np.ascontiguousarray(picture), condition, rng)
    mask = picture[..., 6:]
    photos = picture[..., :6].reshape(*picture.shape[:2], 2, 3)
    if rng.random() < 0.5:
        photos = photos[..., rng.permutation(3)]
    grey = photos.mean(axis=-1, keepdims=True)
    photos = grey + (photos - grey) * (0.0 if condition == "grey" else rng.uniform(0.4, 1.1))
    photos = _expose(photos, condition, rng)
    photos = _degrade(photos.reshape(*picture.shape[:2], 6), condition, rng)
    return np.concatenate([np.clip(photos, 0, 1), mask], axis=-1).astype(np.float32)


def _zoom(picture: NDArray[np.float32], condition: str, rng: np.random.Generator) -> NDArray[np.float32]:
    """Move the camera near to (keeping the defect's centre in view) or far from the thing."""
    side = picture.shape[0]
    if condition == "near":
        window = int(rng.integers(side * 5 // 8, side * 3 // 4))
        rows, columns = np.nonzero(picture[..., 6] > 0.5)
        top, left = (int(np.clip(c.mean() - rng.uniform(0.2, 0.8) * window, 0, side - window)) for c in (rows, columns))
        view = np.ascontiguousarray(picture[top : top + window, left : left + window])
    elif condition == "far":
        border = int(rng.integers(side // 8, side // 5))
        view = cv2.copyMakeBorder(picture, border, border, border, border, cv2.BORDER_REFLECT_101)
    else:
        return picture
    return cv2.resize(view, (side, side), interpolation=cv2.INTER_LINEAR)


def _expose(photos: NDArray[np.float32], condition: str, rng: np.random.Generator) -> NDArray[np.float32]:
    """Change contrast and brightness; `bright` and `dark` go beyond what the others get."""
    photos = (photos - 0.5) * rng.uniform(0.8, 1.2) + 0.5 + rng.uniform(-0.06, 0.06)
    if condition == "bright":
        return photos * rng.uniform(1.15, 1.3) + 0.1
    if condition == "dark":
        return photos * rng.uniform(0.4, 0.6)
    return photos


def _degrade(photos: NDArray[np.float32], condition: str, rng: np.random.Generator) -> NDArray[np.float32]:
    """Blur the pair [S, S, 6] or make it coarse."""
    if condition == "blurry":
        return cv2.GaussianBlur(np.ascontiguousarray(photos), (0, 0), rng.uniform(1.0, 1.8))
    if condition == "coarse":
        coarse = photos.reshape(photos.shape[0] // 3, 3, photos.shape[1] // 3, 3, 6).mean(axis=(1, 3))
        return np.repeat(np.repeat(coarse, 3, axis=0), 3, axis=1)
    return photos
