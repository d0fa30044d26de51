"""What a user asks of a training, and which options, dataset and folder it stands for. Imports no torch."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from zsadbench import methods
from zsadbench.errors import UsageError
from zsadbench.methods import TrainableMethod, TrainRecipe
from zsadbench.support import plugins, preset_names, variants
from zsadbench.support.store import LIMIT
from zsadbench.training import cross_dataset


@dataclass(frozen=True)
class TrainRequest:
    """What the user asked for; the fields are the options of `zsadbench train`."""

    method: str  # CLI name; without a preset, that of the dataset
    dataset: str  # name, or NAME=FOLDER
    out: Path  # the checkpoint's folder
    data_root: Path | None = None
    encoder: str | None = None  # replaces the method's own
    weights: Mapping[str, Path] = field(default_factory=dict)  # encoder SPEC -> local file
    changes: Mapping[str, Any] = field(default_factory=dict)  # option -> value
    device: str = "cpu"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"  # of encoder passes
    seed: int = 0  # draws the initial weights, the order and the augmentation
    epochs: int | None = None  # of every stage; None: the recipe's
    limit: int | None = None  # images per category; None: all
    cache: Path | None = None  # folder that keeps images and encoder passes between runs; None: nothing is kept
    cache_limit: int = LIMIT  # bytes that it may hold

    @property
    def command(self) -> str:
        """Return the shell command that does the same, on whichever device there is."""
        stem = variants.stem_of(self.method)
        given: dict[str, Iterable[object]] = {
            "--method": [self.method],
            "--dataset": [self.dataset],
            "--data-root": [self.data_root],
            "--out": [self.out],
            "--encoder": [self.encoder],
            "--weights": [f"{spec}={path}" for spec, path in self.weights.items()],
            "--set": [f"{stem}.{name}={value}" for name, value in self.changes.items()],
            "--precision": [self.precision if self.precision != TrainRequest.precision else None],
            "--seed": [self.seed or None],
            "--epochs": [self.epochs],
            "--limit": [self.limit],
            "--cache": [self.cache],
            "--cache-limit": [self.cache_limit if self.cache_limit != LIMIT else None],
            "--plugins": plugins.added_folders(),
        }
        words = [str(word) for name, values in given.items() for v in values if v is not None for word in (name, v)]
        return shlex.join(["zsadbench", "train", *words])


def configure(request: TrainRequest, dataset: str) -> tuple[type[TrainableMethod], str, Any]:
    """Resolve the method for a dataset, whose name has its variant: returns (class, full name, options).

    Without a preset it is the one that is trained on the dataset, or the first one's recipe on other data. Raises
    UsageError for a method without training and for a preset that means another dataset; also as methods.configure.
    """
    method, full, _ = methods.lookup(request.method)
    if not issubclass(method, TrainableMethod):
        raise UsageError(f"{full} has nothing to train; expected a trained method, see `zsadbench list methods`.")
    name, own = variants.split(request.method)
    changes = {**request.changes, **own}
    stem, _, family = name.partition(".")
    if family not in method.presets:
        preset = cross_dataset.preset_trained_on(method, dataset, family)
        name = f"{stem}.{preset or next(iter(preset_names.trained_presets(method.presets, family)))}"
        changes = {"trained_on": dataset} | changes
    _, full, config = methods.configure(name, request.encoder, changes)
    trained_on = getattr(config, "trained_on", "nothing")
    if trained_on != dataset:
        raise UsageError(
            f"{name} means trained on {trained_on}, got --dataset {dataset}. Give --method {stem} to train on "
            f"{dataset}, or --dataset {trained_on}."
        )
    if request.epochs is not None:
        config = replace(config, recipe=with_epochs(config.recipe, request.epochs))
    return method, full, config


def with_epochs(recipe: TrainRecipe, epochs: int) -> TrainRecipe:
    """Return a recipe with another number of epochs in every stage."""
    return replace(recipe, stages=tuple(replace(stage, epochs=epochs) for stage in recipe.stages))
