"""Painters of textures: each takes a generator and returns a flawless image that fills the canvas."""

from __future__ import annotations

import numpy as np

from .canvas import CANVAS, Field, blend, colour, fractal, inside, noise, plane, tint


def fabric(rng: np.random.Generator) -> Field:
    """Paint a plain weave: threads that pass over and under each other."""
    u, v = plane(rng, scale=(0.8, 1.3))
    period = rng.uniform(9, 14)
    warp, weft = np.pi * u / period, np.pi * v / period
    over = np.sin(warp) * np.sin(weft) > 0
    relief = np.where(over, np.abs(np.cos(warp / 2)), np.abs(np.cos(weft / 2)))
    return tint(colour(rng, saturation=(0.1, 0.6), value=(0.4, 0.9)), 0.6 + 0.4 * relief + 0.05 * noise(rng, 96))


def corduroy(rng: np.random.Generator) -> Field:
    """Paint parallel ribs with a fine pile."""
    u, _ = plane(rng, scale=(0.8, 1.3))
    ribs = np.abs(np.sin(np.pi * u / rng.uniform(10, 16) + 0.15 * noise(rng, 6)))
    return tint(colour(rng, saturation=(0.2, 0.7), value=(0.4, 0.85)), 0.55 + 0.45 * ribs + 0.07 * noise(rng, 96))


def granite(rng: np.random.Generator) -> Field:
    """Paint a slab of grains in three tones."""
    grain = noise(rng, int(rng.integers(40, 70))) + 0.5 * noise(rng, 20)
    tone = 0.75 + 0.2 * np.tanh(2 * grain) - 0.25 * (grain < -1.2)
    return tint(colour(rng, saturation=(0, 0.35), value=(0.5, 0.95)), tone)


def marble(rng: np.random.Generator) -> Field:
    """Paint veins bent by turbulence over a pale plate."""
    u, _ = plane(rng, scale=(0.8, 1.4))
    veins = np.abs(np.sin(u / rng.uniform(14, 24) + 1.4 * fractal(rng, 3, 4))) ** 0.4
    return tint(colour(rng, saturation=(0, 0.25), value=(0.6, 0.98)), 0.55 + 0.45 * veins)


def mesh(rng: np.random.Generator) -> Field:
    """Paint a wire grid over a plain ground."""
    u, v = plane(rng, scale=(0.8, 1.3))
    period = rng.uniform(14, 22)
    wires = np.maximum(np.abs(np.cos(np.pi * u / period)), np.abs(np.cos(np.pi * v / period))) ** 12
    ground = tint(colour(rng, saturation=(0, 0.4), value=(0.1, 0.4)), 1 + 0.06 * fractal(rng))
    return blend(ground, colour(rng, saturation=(0, 0.3), value=(0.6, 0.95)), wires.astype(np.float32))


def concrete(rng: np.random.Generator) -> Field:
    """Paint a cloudy wall with pores."""
    pores = np.clip(noise(rng, 60) - 2.0, 0, 1)
    tone = 0.85 + 0.07 * fractal(rng, 4, 4) - 0.5 * pores
    return tint(colour(rng, saturation=(0, 0.2), value=(0.45, 0.9)), tone)


def brick(rng: np.random.Generator) -> Field:
    """Paint rows of bricks with mortar between them."""
    u, v = plane(rng, angle=(-0.1, 0.1), scale=(0.8, 1.3))
    row = np.floor(v / 28)
    along = u / 56 + 0.5 * (row % 2)
    tone = 0.85 + 0.12 * np.sin(7.3 * row + 12.9 * np.floor(along) + rng.uniform(0, 6)) + 0.05 * fractal(rng, 16, 3)
    gap = np.minimum(v % 28, (along % 1) * 56) - rng.uniform(3, 5)
    bricks = tint(colour(rng, hue=(0, 0.12), saturation=(0.2, 0.7), value=(0.4, 0.8)), tone)
    return blend(bricks, colour(rng, saturation=(0, 0.1), value=(0.5, 0.9)), inside(gap.astype(np.float32)))


def paper(rng: np.random.Generator) -> Field:
    """Paint a sheet with faint fibres, sometimes ruled."""
    fibres = 0.02 * noise(rng, 96, 24) + 0.02 * noise(rng, 24, 96)
    _, v = plane(rng, scale=(0.8, 1.3))
    lines = 0.12 * (rng.random() < 0.4) * inside(np.abs((v % 24) - 12) - 1)
    return tint(colour(rng, saturation=(0, 0.3), value=(0.75, 1)), 0.92 + fibres - lines)


def leather(rng: np.random.Generator) -> Field:
    """Paint pebbles parted by creases."""
    cells = int(rng.integers(22, 32))
    creases = np.exp(-((noise(rng, cells) / 0.3) ** 2)) + 0.6 * np.exp(-((noise(rng, cells) / 0.3) ** 2))
    tone = 1 - 0.28 * creases + 0.05 * fractal(rng, 3)
    return tint(colour(rng, hue=(0.02, 0.08), saturation=(0.45, 0.75), value=(0.3, 0.6)), tone)


def wood(rng: np.random.Generator) -> Field:
    """Paint a board: bent year rings along one direction and fine fibres."""
    u, _ = plane(rng, angle=(-0.12, 0.12), scale=(0.8, 1.3))
    rings = np.sin(u / rng.uniform(3.5, 6) + 1.2 * noise(rng, 3, 6) + 0.3 * noise(rng, 4, 24))
    tone = 0.9 + 0.1 * rings + 0.05 * noise(rng, 6, 96)
    board = tint(colour(rng, hue=(0.06, 0.1), saturation=(0.4, 0.65), value=(0.5, 0.8)), tone)
    return board if rng.random() < 0.5 else np.ascontiguousarray(board.swapaxes(0, 1))


def tile(rng: np.random.Generator) -> Field:
    """Paint speckled floor tiles with joints between them."""
    u, v = plane(rng, angle=(-0.1, 0.1), shift=CANVAS / 4, scale=(0.9, 1.2))
    speckle = noise(rng, 64)
    tone = 0.9 + 0.12 * (speckle > 1) - 0.2 * (speckle < -1.2)
    joints = inside(np.minimum(np.abs(u % 112 - 56), np.abs(v % 112 - 56)) - 2)
    plate = tint(colour(rng, hue=(0.5, 0.65), saturation=(0.05, 0.35), value=(0.6, 0.9)), tone)
    return blend(plate, colour(rng, saturation=(0, 0.1), value=(0.3, 0.5)), joints)


def pcb(rng: np.random.Generator) -> Field:
    """Paint a circuit board: tracks, pads and a few parts at places that change from board to board."""
    u, v = plane(rng, angle=(-0.06, 0.06), scale=(0.9, 1.1))
    board = tint(colour(rng, hue=(0.3, 0.42), saturation=(0.5, 0.8), value=(0.25, 0.45)), 1 + 0.04 * fractal(rng))
    pitch = 24.0
    lane = np.abs(u % pitch - pitch / 2) - 2
    image = blend(board, board.mean((0, 1)) * 1.5, inside(lane) * (noise(rng, 5) > -0.2))
    pads = np.hypot(u % pitch - pitch / 2, v % pitch - pitch / 2)
    image = blend(image, (0.8, 0.75, 0.6), inside(pads - 6))
    image = blend(image, (0.1, 0.1, 0.1), inside(pads - 2.5))
    for _ in range(2):
        x, y = rng.uniform(-70, 70, 2)
        part = np.maximum(np.abs(u - x) - rng.uniform(12, 22), np.abs(v - y) - rng.uniform(8, 14))
        image = blend(image, colour(rng, saturation=(0, 0.2), value=(0.1, 0.3)), inside(part))
    return image


PAINTERS = {
    "fabric": fabric,
    "corduroy": corduroy,
    "granite": granite,
    "marble": marble,
    "mesh": mesh,
    "concrete": concrete,
    "brick": brick,
    "paper": paper,
    "leather": leather,
    "wood": wood,
    "tile": tile,
    "pcb": pcb,
}
