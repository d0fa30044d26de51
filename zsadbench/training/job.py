"""From the request of a training to its job: the method with initial weights, the images, the card's facts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, Literal, NamedTuple

from zsadbench import datasets, encoders, methods
from zsadbench.data import contents, sampling
from zsadbench.datasets import Dataset, Sample
from zsadbench.encoders import checks
from zsadbench.encoders.base import Encoder
from zsadbench.encoders.watch import Watch
from zsadbench.errors import DataError
from zsadbench.methods import Method, TrainableMethod
from zsadbench.protocol import EvaluationProtocol
from zsadbench.recipes import TrainRecipe
from zsadbench.support import calls, files, source
from zsadbench.training import request as train_request
from zsadbench.training.request import TrainRequest

SPLITS: tuple[Literal["train", "test"], ...] = ("train", "test")


class Job(NamedTuple):
    """A request with everything that it names."""

    request: TrainRequest
    method: TrainableMethod
    dataset: Dataset
    samples: tuple[Sample, ...]
    facts: dict[str, Any]  # of the checkpoint's card: those that are known before the training
    identity: str  # hash of everything that decides the weights
    watch: Watch | None = None  # on the encoder since it was loaded


def prepare(request: TrainRequest) -> Job:
    """Resolve names, list the images, load the encoder and draw the initial weights.

    Raises UsageError, UnknownName, DataError or WeightsError, and Harm if the method changes what others use.
    """
    methods.lookup(request.method)  # a wrong name is told before a missing folder
    dataset = datasets.create(request.dataset, request.data_root)
    method_class, full, config = train_request.configure(request, dataset.name)
    checks.check_weights(request.weights, encoders.specs(config))
    checks.check_methods([(full, method_class, config)], request.weights)
    samples = training_samples(request, dataset, config.recipe)
    encoder = encoders.load_for(config, device=request.device, precision=request.precision, weights=request.weights)
    watch, plugin = Watch(encoder) if encoder is not None else None, calls.Plugin(full, method_class)
    method = calls.call(plugin, partial(_made, method_class, full, config, encoder, request.seed), 0, shared=watch)
    facts = {
        "method": full,
        "trained_on": [dataset.name],
        "options": files.as_json(asdict(config)),
        "encoder": encoder.identity if encoder is not None else {},
        "data": data_of(request, dataset, samples) | {"images": _images(dataset)},
        "seed": request.seed,
        "code": {**code_of(method_class), "dataset": source.of_plugin(type(dataset))},
    }
    return Job(request, method, dataset, samples, facts, files.fingerprint(facts), watch)


def _made(method_class: type[Method], full: str, config: Any, encoder: Encoder | None, seed: int) -> TrainableMethod:
    method = methods.build(method_class, full, config, encoder)
    assert isinstance(method, TrainableMethod)
    method.initialise(seed)
    return method


def _images(dataset: Dataset) -> str:
    """Return the marks of all images of a dataset, whatever a training draws from it: a copy of it is no new data."""
    found = [
        sample
        for category in dataset.categories()
        for split in SPLITS
        for sample in dataset.samples(category.name, split)
    ]
    known = contents.digests(dataset.root, [sample.image for sample in found])
    return " ".join(sorted(contents.marks(found, known)))


def code_of(method: type[TrainableMethod]) -> dict[str, str]:
    """Return the digests of the code that decides trained weights."""
    return {"method": source.of_plugin(method), "zsadbench": source.of_harness(source.TRAININGS)}


def data_of(request: TrainRequest, dataset: Dataset, samples: Sequence[Sample]) -> dict[str, Any]:
    """Return what a card says of the images of a training: counts, and digests of their list and of what they hold."""
    return {
        "dataset": dataset.name,
        "split": samples[0].split,
        "samples": len(samples),
        "anomalous": sum(sample.label for sample in samples),
        "sha256": dataset.samples_sha256(samples),
        "content_sha256": contents.sha256(samples, contents.digests(dataset.root, contents.files_of(samples))),
        "limit": request.limit,
    }


def training_samples(request: TrainRequest, dataset: Dataset, recipe: TrainRecipe) -> tuple[Sample, ...]:
    """Return the images that a recipe trains on. Raises DataError where the dataset lacks them."""
    return _normal_samples(dataset, request, recipe) if recipe.groups else _samples(dataset, request)


def _samples(dataset: Dataset, request: TrainRequest) -> tuple[Sample, ...]:
    """Return the images that are trained on, with masks (docs/protocol.md#training-data). Raises DataError."""
    if not dataset.card.pixel_level:
        raise DataError(
            f"dataset {dataset.name} has no masks, but {request.method} is trained on them; choose a dataset with "
            "masks, such as those of `zsadbench list datasets` that are measured per pixel."
        )
    protocol = EvaluationProtocol(order="dataset", seed=request.seed, limit=request.limit)
    samples = [
        sample
        for category in dataset.categories()
        for sample in sampling.test_samples(dataset, category.name, protocol)
    ]
    if not any(sample.label for sample in samples) or all(sample.label for sample in samples):
        raise DataError(
            f"dataset {dataset.name}: {len(samples)} test images, {sum(sample.label for sample in samples)} of them "
            "anomalous; training needs normal and anomalous ones. Complete the test split, or raise --limit."
        )
    return tuple(samples)


def _normal_samples(dataset: Dataset, request: TrainRequest, recipe: TrainRecipe) -> tuple[Sample, ...]:
    """Return the normal images of the train split, of the test split where there is none. Raises DataError.

    Categories are left out that have fewer than one group.
    """
    group_size = max(recipe.group_size_of(stage) for stage in range(len(recipe.stages)))
    split: Literal["train", "test"] = "train" if dataset.samples(dataset.categories()[0].name, "train") else "test"
    found: list[Sample] = []
    for category in dataset.categories():
        normal = [sample for sample in dataset.samples(category.name, split) if sample.label == 0]
        normal = normal[: request.limit]
        found += normal if len(normal) >= group_size else []
    if not found:
        raise DataError(
            f"dataset {dataset.name}: no category has {group_size} normal images in its {split} split, of which "
            f"{request.method} draws each group. Choose another dataset, or raise --limit."
        )
    return tuple(found)
