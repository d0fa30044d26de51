"""Procedural inspection images for the demo set: textures and objects, with painted defects and exact masks.

A picture follows from (category, seed, defect) alone. The clean scene, its light and its camera noise follow from
(category, seed), so `render_twins` gives a flawless and a defective picture of the same thing. The training family and
the held-out families share no category, and the defects `glue` and `print` occur in the test family only.
"""

from __future__ import annotations

import zlib
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from zsadbench.errors import UnknownName

from . import damage, objects, textures
from .canvas import CANVAS, SIDE, Field, Scene

__all__ = [
    "SIDE",
    "TEST_CATEGORIES",
    "TRAIN_CATEGORIES",
    "VALIDATION_CATEGORIES",
    "VERSION",
    "Rendered",
    "Twins",
    "defects",
    "render",
    "render_twins",
]

VERSION = 1  # raised whenever a picture changes
MIN_AREA, MAX_AREA = 0.005, 0.03  # share of the image that a mask covers
MIN_CHANGE = 0.05  # mean absolute change of intensity within the mask, of 1: a defect can be seen
ATTEMPTS = 60

_TRAIN_DEFECTS = ("scratch", "crack", "hole", "stain", "spot", "thread", "dent", "missing")
TRAIN_CATEGORIES = (
    "fabric", "corduroy", "granite", "marble", "mesh", "concrete", "brick", "paper",
    "nut", "button", "cookie", "battery", "chip", "coin",
)  # fmt: skip
VALIDATION_CATEGORIES = ("tile", "pcb")
TEST_CATEGORIES = ("leather", "wood", "pill", "gear")
_CATALOGUE = dict.fromkeys(TRAIN_CATEGORIES, _TRAIN_DEFECTS) | {
    "leather": ("scratch", "hole", "stain", "glue"),
    "wood": ("crack", "hole", "spot", "glue"),
    "pill": ("crack", "missing", "spot", "print"),
    "gear": ("scratch", "dent", "missing", "stain"),
    "tile": ("crack", "dent", "stain", "thread"),
    "pcb": ("scratch", "hole", "missing", "spot"),
}


class Rendered(NamedTuple):
    """One finished picture."""

    image: NDArray[np.uint8]  # [SIDE, SIDE, 3] RGB
    mask: NDArray[np.bool_]  # [SIDE, SIDE], True where defective


class Twins(NamedTuple):
    """The same thing with and without its defect."""

    clean: NDArray[np.uint8]  # [SIDE, SIDE, 3] RGB
    defective: NDArray[np.uint8]  # [SIDE, SIDE, 3] RGB
    mask: NDArray[np.bool_]  # [SIDE, SIDE], True where defective


class _Camera(NamedTuple):
    """Light and sensor noise of one shot, shared by twins."""

    light: Field  # [SIDE, SIDE, 1] factor
    noise: Field  # [SIDE, SIDE, 3] of 1

    def shoot(self, image: Field) -> NDArray[np.uint8]:
        """Turn a canvas image into a finished picture."""
        small = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        return np.round(np.clip(small * self.light + self.noise, 0, 1) * 255).astype(np.uint8)


def defects(category: str) -> tuple[str, ...]:
    """Return the defect types of a category. Raises UnknownName for a category that is not procedural."""
    if category not in _CATALOGUE:
        raise UnknownName("procedural category", category, _CATALOGUE)
    return _CATALOGUE[category]


def render(category: str, seed: int, defect: str | None = None) -> Rendered:
    """Render one picture, flawless where `defect` is None; its mask is then all False.

    Raises UnknownName for a category or a defect that the catalogue does not hold.
    """
    if defect is not None:
        twins = render_twins(category, seed, defect)
        return Rendered(twins.defective, twins.mask)
    scene, camera = _scene(category, seed)
    return Rendered(camera.shoot(scene.image), np.zeros((SIDE, SIDE), np.bool_))


def render_twins(category: str, seed: int, defect: str) -> Twins:
    """Render a thing flawless and defective; object, light and noise are the same in both pictures.

    The defect is redrawn until its mask covers 0.5 to 3 % of the image and it can be seen.
    """
    if defect not in defects(category):
        raise UnknownName(f"defect of the procedural category {category}", defect, defects(category))
    scene, camera = _scene(category, seed)
    key = zlib.crc32(f"{category}/{defect}".encode())
    for attempt in range(ATTEMPTS):
        rng = np.random.default_rng([key, seed, attempt])
        style = damage.Style(size=rng.uniform(0.75, 1.25), contrast=rng.uniform(0.75, 1.2))
        damaged = damage.PAINTERS[defect](scene, rng, style)
        mask = cv2.resize(damaged.coverage, (SIDE, SIDE), interpolation=cv2.INTER_AREA) > 0.35
        if MIN_AREA <= mask.mean() <= MAX_AREA and _change(scene.image, damaged.image, mask) >= MIN_CHANGE:
            return Twins(camera.shoot(scene.image), camera.shoot(damaged.image), mask)
    raise RuntimeError(f"no {defect} of the wanted size found on {category} with seed {seed} in {ATTEMPTS} attempts")


def _scene(category: str, seed: int) -> tuple[Scene, _Camera]:
    """Draw the flawless scene of a seed and the camera that takes it."""
    defects(category)  # raises for an unknown category
    rng = np.random.default_rng([zlib.crc32(category.encode()), seed])
    if category in objects.PAINTERS:
        scene = objects.PAINTERS[category](rng)
    else:
        image = np.clip(textures.PAINTERS[category](rng), 0, 1).astype(np.float32)
        scene = Scene(image, np.ones((CANVAS, CANVAS), np.float32), None)
    ys, xs = np.mgrid[:SIDE, :SIDE].astype(np.float32) / SIDE - 0.5
    angle, slope, gain = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.12), rng.uniform(0.9, 1.1)
    light = gain * (1 + slope * (xs * np.cos(angle) + ys * np.sin(angle)))
    noise = rng.normal(0, rng.uniform(0.005, 0.02), (SIDE, SIDE, 3))
    return scene, _Camera(light[..., None].astype(np.float32), noise.astype(np.float32))


def _change(clean: Field, damaged: Field, mask: NDArray[np.bool_]) -> float:
    """Return the mean absolute change of intensity within the mask."""
    difference = cv2.resize(np.abs(damaged - clean).mean(axis=2), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return float(difference[mask].mean())
