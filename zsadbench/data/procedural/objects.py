"""Painters of objects: each takes a generator and returns a flawless scene of one object on a backdrop.

Objects are large and backdrops vary (plain, cloudy, striped, woven), so that neither the outline nor the ground tells
where a defect lies.
"""

from __future__ import annotations

import numpy as np

from . import textures
from .canvas import Field, Scene, blend, box, colour, fractal, inside, noise, plane, ring, tint


def _backdrop(rng: np.random.Generator) -> Field:
    """Paint what an object lies on, with muted patterns."""
    kind = rng.integers(5)
    if kind < 2:
        pattern = textures.fabric(rng) if kind == 0 else textures.concrete(rng)
        return np.asarray(0.4 * pattern + 0.6 * pattern.mean((0, 1)))
    ground = colour(rng, saturation=(0, 0.5), value=(0.08, 0.95))
    if kind == 2:
        stripes = np.sin(plane(rng)[0] / rng.uniform(4, 12))
        return tint(ground, 0.95 + 0.05 * stripes)
    return tint(ground, 1 + 0.06 * fractal(rng, 2))


def _place(rng: np.random.Generator, body: Field, outline: Field) -> Scene:
    """Lay a painted body with a signed-distance outline, and its shadow, on a random backdrop."""
    foreground = inside(outline)
    backdrop = _apart(_backdrop(rng), float(body[foreground > 0.5].mean()))
    shade = inside(np.roll(outline, (4, 4), (0, 1)), softness=10)
    shaded = backdrop * (1 - 0.45 * shade[..., None])
    return Scene(blend(shaded, np.clip(body, 0, 1), foreground), foreground, backdrop)


def _apart(backdrop: Field, brightness: float) -> Field:
    """Darken or lighten a backdrop whose mean is near the object's brightness, so that a missing part can be seen."""
    if abs(float(backdrop.mean()) - brightness) > 0.2:
        return backdrop
    return 0.5 * backdrop if brightness > 0.5 else 0.5 + 0.5 * backdrop


def _metal(rng: np.random.Generator) -> Field:
    """Return a greyish or brassy colour."""
    return colour(rng, hue=(0.05, 0.65), saturation=(0, 0.2), value=(0.45, 0.85))


def nut(rng: np.random.Generator) -> Scene:
    """Draw a hexagonal nut with a threaded hole."""
    u, v = plane(rng, scale=(0.85, 1.1))
    radius = np.hypot(u, v)
    sector = np.mod(np.arctan2(v, u), np.pi / 3) - np.pi / 6
    hexagon = radius * np.cos(sector) - 78
    body = tint(_metal(rng), 0.9 + 0.05 * np.sin(radius / 2) + 0.06 * fractal(rng, 3))
    body = body * (1 - 0.3 * ring(radius - 46, 5)[..., None])
    return _place(rng, body, np.maximum(hexagon, 36 - radius))


def button(rng: np.random.Generator) -> Scene:
    """Draw a round button with a rim and two or four holes."""
    u, v = plane(rng, scale=(0.85, 1.1))
    radius = np.hypot(u, v)
    across = np.abs(v) if rng.random() < 0.5 else np.abs(np.abs(v) - 16)
    holes = np.hypot(np.abs(u) - 16, across) - 8
    body = tint(colour(rng, saturation=(0.1, 0.9), value=(0.3, 0.95)), 0.92 + 0.04 * fractal(rng, 3))
    body = body * (1 - 0.25 * ring(radius - 64, 6)[..., None])
    return _place(rng, body, np.maximum(radius - 84, -holes))


def cookie(rng: np.random.Generator) -> Scene:
    """Draw a cookie with an uneven edge and chocolate pieces."""
    u, v = plane(rng, scale=(0.85, 1.1))
    edge = np.hypot(u, v) + 3 * noise(rng, 6) - 82
    dough = colour(rng, hue=(0.06, 0.11), saturation=(0.4, 0.7), value=(0.55, 0.85))
    body = tint(dough, 0.95 + 0.07 * fractal(rng, 12))
    pieces = inside((1.3 - noise(rng, 9)) * 12)
    return _place(rng, blend(body, (0.22, 0.12, 0.07), pieces), edge)


def battery(rng: np.random.Generator) -> Scene:
    """Draw a cell with a coloured sleeve and a metal cap."""
    u, v = plane(rng, angle=(-0.5, 0.5), scale=(0.85, 1.1))
    outline = np.minimum(box(u, v, (46, 80), 8), box(u, v + 84, (16, 10), 3))
    sheen = 0.75 + 0.3 * np.cos(u / 30)
    body = tint(colour(rng, saturation=(0.2, 0.9), value=(0.3, 0.9)), sheen)
    band = inside(v + rng.uniform(30, 55))
    return _place(rng, blend(body, tint(_metal(rng), sheen), band), outline)


def chip(rng: np.random.Generator) -> Scene:
    """Draw a packaged circuit with rows of pins."""
    u, v = plane(rng, angle=(-0.4, 0.4), scale=(0.85, 1.1))
    package = box(u, v, (60, 66), 4)
    pins = np.maximum(np.abs(u) - 80, np.abs(np.mod(v, 18) - 9) - 4)
    pins = np.maximum(pins, np.abs(v) - 63)
    body = tint(colour(rng, saturation=(0, 0.3), value=(0.12, 0.4)), 1 + 0.08 * fractal(rng, 24, 2))
    body = blend(body, body.mean((0, 1)) * 1.8, inside(np.hypot(u + 42, v + 48) - 6))
    body = blend(tint(_metal(rng), np.ones_like(u)), body, inside(package))
    return _place(rng, body, np.minimum(package, pins))


def coin(rng: np.random.Generator) -> Scene:
    """Draw a coin with a rim, a ring of dots and a star in relief."""
    u, v = plane(rng, scale=(0.85, 1.1))
    radius, angle = np.hypot(u, v), np.arctan2(v, u)
    star = radius - 34 - 12 * np.cos(rng.integers(4, 8) * angle)
    dots = np.hypot(radius - 62, 62 * (np.mod(angle, np.pi / 12) - np.pi / 24)) - 3
    relief = 0.85 + 0.15 * ring(radius - 78, 6) - 0.2 * ring(star, 4) + 0.12 * inside(dots)
    return _place(rng, tint(_metal(rng), relief + 0.04 * fractal(rng, 4)), radius - 84)


def pill(rng: np.random.Generator) -> Scene:
    """Draw a large oblong tablet with a score line and coloured speckles."""
    u, v = plane(rng, angle=(-0.4, 0.4), scale=(0.95, 1.1))
    outline = box(u, v, (90, 76), 60)
    body = tint(colour(rng, saturation=(0.02, 0.2), value=(0.75, 0.95)), 0.97 + 0.02 * fractal(rng, 8))
    body = body * (1 - 0.2 * ring(u, 6)[..., None]) * (1 - 0.15 * inside(-outline - 8, 12)[..., None])
    speckles = 0.6 * (noise(rng, 40) > 2.1).astype(np.float32)
    return _place(rng, blend(body, (0.75, 0.25, 0.25), speckles), outline)


def gear(rng: np.random.Generator) -> Scene:
    """Draw a large toothed wheel with a bore and lightening holes."""
    u, v = plane(rng, scale=(0.95, 1.1))
    radius, angle = np.hypot(u, v), np.arctan2(v, u)
    teeth = int(rng.integers(12, 17))
    rim = radius - 84 - 6 * np.clip(3 * np.cos(teeth * angle), -1, 1)
    spokes = np.mod(angle, np.pi / 2.5) - np.pi / 5
    holes = np.hypot(radius * np.cos(spokes) - 46, radius * np.sin(spokes)) - 9
    bore = radius - 14
    relief = 0.9 + 0.04 * np.sin(radius) - 0.18 * ring(radius - 68, 5) - 0.15 * ring(radius - 24, 4)
    body = tint(_metal(rng), relief + 0.05 * fractal(rng, 3))
    return _place(rng, body, np.maximum(rim, -np.minimum(holes, bore)))


PAINTERS = {
    "nut": nut,
    "button": button,
    "cookie": cookie,
    "battery": battery,
    "chip": chip,
    "coin": coin,
    "pill": pill,
    "gear": gear,
}
