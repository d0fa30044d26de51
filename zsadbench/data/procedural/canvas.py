"""The drawing board of the procedural images: noise fields, distances, colours and the scene they make.

Everything is drawn on a canvas of twice the final side and then averaged down, which anti-aliases the edges.
Fields are [CANVAS, CANVAS] float32; images are [CANVAS, CANVAS, 3] float32 RGB in 0..1.
"""

from __future__ import annotations

import colorsys
import math
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE = 96  # pixels of a finished image: 12 x 12 patches of 8
CANVAS = 2 * SIDE

Field = NDArray[Any]  # float32
Colour = tuple[float, float, float] | Field
Point = tuple[float, float]
Range = tuple[float, float]
Pair = tuple[Field, Field]


class Scene(NamedTuple):
    """A flawless picture before light and camera noise."""

    image: Field  # [CANVAS, CANVAS, 3]
    foreground: Field  # [CANVAS, CANVAS] coverage of the object in 0..1; all ones for a texture
    backdrop: Field | None  # [CANVAS, CANVAS, 3] what lies behind the object; None for a texture


def plane(rng: np.random.Generator, angle: Range = (0, np.pi), shift: float = 8, scale: Range = (1, 1)) -> Pair:
    """Return pixel coordinates (u, v) about the centre, randomly turned, moved and scaled."""
    ys, xs = np.mgrid[:CANVAS, :CANVAS].astype(np.float32) - CANVAS / 2
    turn, size = rng.uniform(*angle), rng.uniform(*scale)
    dx, dy = rng.uniform(-shift, shift, 2)
    xs, ys = (xs - dx) / size, (ys - dy) / size
    return turned(xs, ys, turn)


def turned(x: Field, y: Field, angle: float) -> Pair:
    """Return the coordinates (u, v) of a frame turned by `angle` radians."""
    cos, sin = math.cos(angle), math.sin(angle)
    return x * cos + y * sin, y * cos - x * sin


def noise(rng: np.random.Generator, rows: int, columns: int | None = None) -> Field:
    """Return smooth random bumps, about standard normal, with `rows` x `columns` bumps across the canvas."""
    knots = rng.standard_normal((rows, columns or rows), dtype=np.float32)
    return cv2.resize(knots, (CANVAS, CANVAS), interpolation=cv2.INTER_CUBIC)


def fractal(rng: np.random.Generator, coarsest: int = 4, octaves: int = 3) -> Field:
    """Return the sum of `octaves` noise fields, each twice as fine and half as strong as the one before."""
    total = sum(noise(rng, coarsest * 2**octave) / 2**octave for octave in range(octaves))
    return np.asarray(total, dtype=np.float32)


def colour(rng: np.random.Generator, hue: Range = (0, 1), saturation: Range = (0, 1), value: Range = (0, 1)) -> Field:
    """Return a random RGB colour [3] in 0..1 from ranges of hue, saturation and value."""
    return np.array(colorsys.hsv_to_rgb(*(rng.uniform(*bounds) for bounds in (hue, saturation, value))), np.float32)


def tint(paint: Field, brightness: Field) -> Field:
    """Return an image of one colour [3] whose brightness follows a field (1 = the colour itself)."""
    return np.asarray(paint * brightness[..., None], np.float32)


def blend(image: Field, paint: Colour, alpha: Field) -> Field:
    """Lay `paint` ([3] or an image) over `image` with coverage `alpha` in 0..1."""
    cover = alpha[..., None]
    return np.asarray(image * (1 - cover) + np.asarray(paint, np.float32) * cover, np.float32)


def inside(distance: Field, softness: float = 1.0) -> Field:
    """Turn a signed distance in pixels (negative inside) into a coverage in 0..1 with a soft edge."""
    return np.clip(0.5 - distance / softness, 0, 1).astype(np.float32)


def ring(distance: Field, width: float) -> Field:
    """Return the coverage of the line of `width` pixels where `distance` is zero."""
    return inside(np.abs(distance) - width / 2)


def box(u: Field, v: Field, half: Point, corner: float = 0) -> Field:
    """Return the signed distance to a box with half-sides `half` and rounded corners."""
    x, y = np.abs(u) - (half[0] - corner), np.abs(v) - (half[1] - corner)
    outside = np.hypot(np.maximum(x, 0), np.maximum(y, 0))
    return outside + np.minimum(np.maximum(x, y), 0) - corner


def stroke(points: NDArray[np.float64], width: float) -> Field:
    """Return the coverage of a polyline through `points` [n, 2] (x, y) of `width` pixels."""
    sheet = np.zeros((CANVAS, CANVAS), np.uint8)
    sixteenths = np.round(points * 16).astype(np.int32).reshape(-1, 1, 2)
    cv2.polylines(sheet, [sixteenths], False, 255, max(1, round(width)), cv2.LINE_AA, 4)
    return sheet.astype(np.float32) / 255
