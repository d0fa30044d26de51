"""Painters of defects: each takes a scene, a generator and a style, and returns the damaged image and its coverage.

Coverage is [CANVAS, CANVAS] float32 in 0..1. Damage (scratch, crack, hole, dent, print) stays on the object; dirt
(stain, spot, thread, glue) may also lie beside it; a missing part bites the object's edge and shows the backdrop.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from .canvas import CANVAS, Field, Point, Scene, blend, box, colour, inside, noise, ring, stroke, turned

MARGIN = 24  # canvas pixels between the centre of a defect and the edge of the image


class Style(NamedTuple):
    """How large and how plain the defects of one image are, as factors."""

    size: float
    contrast: float


class Damage(NamedTuple):
    """A damaged image and where the damage is."""

    image: Field  # [CANVAS, CANVAS, 3]
    coverage: Field  # [CANVAS, CANVAS]


def _centre(scene: Scene, rng: np.random.Generator, where: str) -> Point:
    """Draw a centre (x, y): `on` the object, on its `edge`, or `any`where."""
    allowed = scene.foreground > 0.5
    if where == "any":
        allowed = np.ones_like(allowed)
    if where == "edge" and scene.backdrop is not None:
        allowed = allowed & (cv2.blur(scene.foreground, (9, 9)) < 0.75)
    rows, columns = np.nonzero(allowed[MARGIN:-MARGIN, MARGIN:-MARGIN])
    pick = rng.integers(len(rows))
    return float(columns[pick] + MARGIN), float(rows[pick] + MARGIN)


def _around(centre: Point) -> tuple[Field, Field]:
    """Return pixel coordinates (x, y) relative to a centre."""
    ys, xs = np.mgrid[:CANVAS, :CANVAS].astype(np.float32)
    return xs - np.float32(centre[0]), ys - np.float32(centre[1])


def _blob(rng: np.random.Generator, centre: Point, radius: float, roughness: float) -> Field:
    """Return the signed distance to an uneven, slightly stretched disc."""
    x, y = _around(centre)
    stretch, turn = rng.uniform(0.75, 1.3), rng.uniform(0, np.pi)
    u, v = turned(x, y, turn)
    return np.asarray(np.hypot(u * stretch, v / stretch) - radius * (1 + roughness * noise(rng, 10)), np.float32)


def _curve(rng: np.random.Generator, centre: Point, length: float, bend: float) -> Field:
    """Return the points [n, 2] (x, y) of a bent line through a centre, kept within the canvas."""
    turn = rng.uniform(0, 2 * np.pi)
    along = np.linspace(-0.5, 0.5, 24) * length
    waves, phase = rng.uniform(1, 2.5), rng.uniform(0, 2 * np.pi)
    across = bend * length * (np.sin(waves * 2 * np.pi * along / length + phase) - np.sin(phase))
    x = centre[0] + along * np.cos(turn) - across * np.sin(turn)
    y = centre[1] + along * np.sin(turn) + across * np.cos(turn)
    return np.asarray(np.clip(np.stack([x, y], axis=1), 4, CANVAS - 5))


def scratch(scene: Scene, rng: np.random.Generator, style: Style) -> Damage:
    """Draw a light or dark, almost straight groove."""
    line = _curve(rng, _centre(scene, rng, "on"), rng.uniform(60, 110) * style.size, 0.03)
    groove = stroke(line, rng.uniform(3, 6)) * scene.foreground
    change = (0.5 if rng.random() < 0.5 else -0.45) * style.contrast
    return Damage(np.clip(scene.image + change * groove[..., None], 0, 1), groove)


def crack(scene: Scene, rng: np.random.Generator, style: Style) -> Damage:
    """Draw a dark jagged line with branches."""
    x, y = _centre(scene, rng, "on")
    gap = np.zeros((CANVAS, CANVAS), np.float32)
    heading = rng.uniform(0, 2 * np.pi)
    for branch in (0, 0, 1, 1):
        turns = heading + np.pi * (rng.random() < 0.5) + rng.uniform(0.5, 1.1) * branch + rng.normal(0, 0.5, 6)
        steps = rng.uniform(5, 11, 6) * style.size
        path = np.cumsum(np.stack([steps * np.cos(turns), steps * np.sin(turns)], 1), axis=0)
        points = np.concatenate([np.zeros((1, 2)), path]) + np.array([x, y])
        gap = np.maximum(gap, stroke(np.clip(points, 4, CANVAS - 5), rng.uniform(2, 4)))
    gap = gap * scene.foreground
    return Damage(blend(scene.image, scene.image * 0.2, gap * min(style.contrast, 1)), gap)


def hole(scene: Scene, rng: np.random.Generator, style: Style) -> Damage:
    """Punch a dark hole with a raised rim."""
    distance = _blob(rng, _centre(scene, rng, "on"), rng.uniform(9, 15) * style.size, 0.06)
    pit, rim = inside(distance) * scene.foreground, ring(distance, 4) * scene.foreground
    image = blend(scene.image, scene.image * (1 - 0.85 * min(style.contrast, 1)), pit)
    return Damage(np.clip(image + 0.2 * style.contrast * rim[..., None], 0, 1), np.maximum(pit, rim))


def stain(scene: Scene, rng: np.random.Generator, style: Style) -> Damage:
    """Soak an uneven patch, which darkens and tints what it covers."""
    wet = inside(_blob(rng, _centre(scene, rng, "any"), rng.uniform(12, 19) * style.size, 0.15), softness=5)
    dye = 1 - 0.6 * style.contrast * (1 - 0.6 * colour(rng, saturation=(0, 0.8), value=(0.3, 1)))
    return Damage(blend(scene.image, scene.image * dye, wet), wet)


def spot(scene: Scene, rng: np.random.Generator, style: Style) -> Damage:
    """Drop one to three blots of a strong colour."""
    dots = np.zeros((CANVAS, CANVAS), np.float32)
    for _ in range(rng.integers(1, 4)):
        radius = rng.uniform(7, 11) * style.size
        dots = np.maximum(dots, inside(_blob(rng, _centre(scene, rng, "any"), radius, 0.1)))
    paint = colour(rng, saturation=(0.6, 1), value=(0.4, 1))
    return Damage(blend(scene.image, paint, dots * min(0.9 * style.contrast, 1)), dots)


def thread(scene: Scene, rng: np.random.Generator, style: Style) -> Damage:
    """Lay a wavy coloured fibre with its shadow."""
    line = _curve(rng, _centre(scene, rng, "any"), rng.uniform(55, 90) * style.size, 0.12)
    width = rng.uniform(2.5, 4.5)
    fibre, shadow = stroke(line, width), stroke(np.clip(line + 3, 4, CANVAS - 5), width + 1)
    shaded = blend(scene.image, scene.image * 0.6, shadow)
    return Damage(blend(shaded, colour(rng, saturation=(0.1, 1), value=(0.2, 1)), fibre), np.maximum(fibre, shadow))


def dent(scene: Scene, rng: np.random.Generator, style: Style) -> Damage:
    """Press a hollow: one side in shade, the other in light."""
    x, y = _around(_centre(scene, rng, "on"))
    radius = rng.uniform(15, 21) * style.size
    towards_light, _ = turned(x, y, rng.uniform(0, 2 * np.pi))
    bowl = np.clip(1 - (x**2 + y**2) / radius**2, 0, 1) * scene.foreground
    slope = 1.5 * style.contrast * bowl * towards_light / radius
    return Damage(np.clip(scene.image + slope[..., None] * (0.2 + 0.6 * scene.image), 0, 1), bowl)


def missing(scene: Scene, rng: np.random.Generator, style: Style) -> Damage:
    """Bite a part out of the object's edge; in a texture leave a bare patch."""
    bite = inside(_blob(rng, _centre(scene, rng, "edge"), rng.uniform(13, 20) * style.size, 0.06)) * scene.foreground
    bare = scene.image.mean((0, 1)) * rng.uniform(0.6, 1.2) if scene.backdrop is None else scene.backdrop
    return Damage(np.clip(blend(scene.image, bare, bite), 0, 1), bite)


def glue(scene: Scene, rng: np.random.Generator, style: Style) -> Damage:
    """Spill clear glue: blurred and milky below, a bright rim of light above."""
    distance = _blob(rng, _centre(scene, rng, "any"), rng.uniform(13, 19) * style.size, 0.2)
    puddle = inside(distance, softness=3)
    milky = 0.65 * cv2.GaussianBlur(scene.image, (0, 0), 4) + 0.35
    shine = ring(distance + 5, 3) * (noise(rng, 8) > 0.3)
    return Damage(np.clip(blend(scene.image, milky, puddle) + 0.45 * shine[..., None], 0, 1), puddle)


def stamp(scene: Scene, rng: np.random.Generator, style: Style) -> Damage:
    """Stamp three letters of random bars in ink where none belongs."""
    x, y = _around(_centre(scene, rng, "on"))
    turn, pixel = rng.uniform(0, 2 * np.pi), 4.0 * style.size
    u, v = turned(x / pixel, y / pixel, turn)
    glyphs = np.zeros((5, 11), np.float32)
    for start in (0, 4, 8):
        glyphs[:, start : start + 3] = rng.random((5, 3)) < 0.7
    ink = cv2.remap(glyphs, u + 5, v + 2, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT) * scene.foreground
    dark_ink = scene.image.mean() > 0.35
    paint = colour(rng, saturation=(0.2, 1), value=(0.05, 0.3) if dark_ink else (0.8, 1))
    label = inside(pixel * box(u, v, (5.5, 2.5))) * scene.foreground
    return Damage(blend(scene.image, paint, ink * min(style.contrast, 1)), label)


PAINTERS = {
    "scratch": scratch,
    "crack": crack,
    "hole": hole,
    "stain": stain,
    "spot": spot,
    "thread": thread,
    "dent": dent,
    "missing": missing,
    "glue": glue,
    "print": stamp,
}
