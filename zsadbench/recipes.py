"""How a method is trained, as values: stages, learning-rate schedules and augmentations. Imports nothing heavy."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from typing import Literal, Protocol


class Schedule(Protocol):
    """How the learning rates of a stage change, from the position alone, so that a resumed training needs no state.

    Schedules are frozen dataclasses: their fields go into the card of a checkpoint.
    """

    def factor(self, step: int, steps: int) -> float:
        """Return what multiplies every learning rate in optimiser step `step`, from 0, of a stage of `steps`."""


@dataclass(frozen=True)
class MultiStep:
    """Multiply the learning rates by `gamma` after each of some numbers of optimiser steps of the stage."""

    milestones: tuple[int, ...]  # ascending
    gamma: float

    def factor(self, step: int, steps: int) -> float:
        """Return gamma to the number of milestones that have been passed."""
        return self.gamma ** bisect_right(self.milestones, step)


@dataclass(frozen=True)
class Cosine:
    """Raise the learning rates from 0 over a first share of the stage's steps, then lower them to 0 along a cosine."""

    warm_up: float = 0.0  # the share, below 1

    def factor(self, step: int, steps: int) -> float:
        """Return step / rising while they rise; then half of 1 + cos, from 1 to 0."""
        rising = int(self.warm_up * steps)
        if step < rising:
            return step / rising
        return (1 + math.cos(math.pi * (step - rising) / (steps - rising))) / 2


@dataclass(frozen=True)
class Augmentation:
    """Random changes of single training images; `zsadbench.training.augment` draws and applies them, in this order.

    Factors are drawn from 1 - x to 1 + x. The mask moves with its image; what comes in from outside is 0 in both, after
    normalisation. An image's label is kept, also where its defect is moved out.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    colour_chance: float = 0.0  # of each of the three above
    rotation: float = 0.0  # largest angle to either side, in degrees
    translation: float = 0.0  # largest shift in either direction and along each axis, as a share of the side
    warp_chance: float = 0.0  # of a rotation, and of a translation
    horizontal_flip: float = 0.0  # chance
    vertical_flip: float = 0.0  # chance


@dataclass(frozen=True)
class Stage:
    """One stage of a training: what is optimised, how, and for how long."""

    epochs: int
    lr: float
    name: str = ""  # passed to `loss`, for methods whose stages have different losses
    parameters: tuple[str, ...] = ("",)  # prefixes of names in `trained`; "" is all of them
    optimiser: Literal["adam", "adamw"] = "adam"
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    batch_size: int | None = None  # None: the recipe's
    schedule: Schedule | None = None  # of the learning rates; None: constant
    rates: tuple[tuple[str, float], ...] = ()  # (prefix, learning rate) of parameters with another one than `lr`
    augment: Augmentation | None = None  # anew in each epoch; features of changed images are never kept

    def rate(self, name: str) -> float:
        """Return the learning rate of a parameter, by the first prefix in `rates` that it starts with."""
        return next((rate for prefix, rate in self.rates if name.startswith(prefix)), self.lr)


@dataclass(frozen=True)
class TrainRecipe:
    """How a method is trained; part of its options, so that another recipe is another preset."""

    stages: tuple[Stage, ...]
    batch_size: int
    shuffle: bool = True  # drawn from the seed, anew each epoch; False: the dataset's order
    mosaic: float = 0.0  # chance that an image becomes a 2 x 2 mosaic of its category (docs/training.md#recipe)
    groups: int = 0  # a batch is so many groups of normal images, each of one category drawn anew; 0: of any images

    def batch_size_of(self, stage: int) -> int:
        """Return the batch size of the stage of this index."""
        return self.stages[stage].batch_size or self.batch_size

    def group_size_of(self, stage: int) -> int:
        """Return how many images a group of the stage of this index has."""
        return self.batch_size_of(stage) // self.groups

    def epoch_size_of(self, stage: int, count: int) -> int:
        """Return how many of `count` images an epoch of a stage sees: all, or one batch where batches have groups."""
        return self.batch_size_of(stage) if self.groups else count
