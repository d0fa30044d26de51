"""Training images: samples -> batches with labels and masks, and the features of the frozen encoder that are kept.

All draws (order, mosaics, changes, whatever a loss draws) come from the seed and the position in the training alone, so
a training that goes on after a kill sees what it would have seen.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from zsadbench.data import masks, sampling
from zsadbench.data.images import Preprocess, apply
from zsadbench.data.pictures import Pictures
from zsadbench.data.reading import Reader
from zsadbench.datasets import Category, Dataset, Sample
from zsadbench.encoders.base import Encoder
from zsadbench.encoders.features import FeatureRequest, Features
from zsadbench.encoders.kept import Identities, KeptPasses
from zsadbench.methods import TrainRecipe
from zsadbench.support.spill import Parked, Spill
from zsadbench.training import augment

MEMORY_BUDGET = 4 * 2**30  # bytes of features kept in memory; more go to disk


class Example(NamedTuple):
    """What becomes one training image: a sample, or four of a mosaic."""

    samples: tuple[Sample, ...]
    number: int | None  # of the sample in the data, from 0; None: a mosaic or a changed image, never seen again
    change: augment.Change = augment.Change()

    @property
    def label(self) -> int:
        """1 if any of its samples is anomalous."""
        return max(sample.label for sample in self.samples)

    def changed(self, change: augment.Change) -> Example:
        """Return it with what becomes of it."""
        return self if change == augment.Change() else Example(self.samples, None, change)


class Place(NamedTuple):
    """Where a training is."""

    stage: int
    epoch: int


class FeatureCache:
    """Features of single images, kept in memory up to a budget, then on disk if it has room for all the rest."""

    def __init__(self, count: int, spill: Spill, folder: Path, budget: int = MEMORY_BUDGET) -> None:
        """Expect features of `count` images; `spill` writes below `folder`."""
        self._count, self._spill, self._folder, self._room = count, spill, folder, budget
        self._kept: dict[int, dict[tuple[str, str], Tensor | Parked]] = {}  # number -> (encoder, name) -> tensor
        self._disk: bool | None = None  # whether the disk has room; None: not needed so far

    def __contains__(self, number: int | None) -> bool:
        """Tell whether some features of an image are kept, so that its pixels are probably not needed."""
        return number in self._kept

    def get(self, number: int, encoder: Encoder, request: FeatureRequest) -> Features | None:
        """Return all requested features of an image on the encoder's device, as they were put; None if one lacks."""
        kept, key, names = self._kept.get(number, {}), encoder.key, request.keys()
        if any((key, name) not in kept for name in names):
            return None
        return Features({name: self._load(kept[key, name]).to(encoder.device) for name in names})

    def put(self, number: int, encoder: Encoder, features: Features) -> None:
        """Keep features of one image, if there is room."""
        tensors: Mapping[str, Tensor | Parked] = {name: tensor.cpu() for name, tensor in features.tensors.items()}
        size = sum(tensor.nbytes for tensor in features.tensors.values())
        if size <= self._room:
            self._room -= size
        elif self._fits_on_disk(size):
            tensors = {name: self._spill.write(tensor) for name, tensor in features.tensors.items()}
        else:
            return
        self._kept.setdefault(number, {}).update({(encoder.key, name): tensor for name, tensor in tensors.items()})

    def _load(self, value: Tensor | Parked) -> Tensor:
        return self._spill.read(value) if isinstance(value, Parked) else value

    def _fits_on_disk(self, size: int) -> bool:
        if self._disk is None:
            self._disk = shutil.disk_usage(self._folder).free > 2 * size * (self._count - len(self._kept))
        return self._disk


class TrainingData:
    """Images of a dataset to train on: reads them, and cuts epochs into batches."""

    def __init__(
        self,
        dataset: Dataset,
        samples: Sequence[Sample],
        preprocess: Preprocess,
        *,
        device: str,
        seed: int,
        pool: Executor,
        cache: FeatureCache | None = None,
        pictures: Pictures | None = None,
        kept: KeptPasses | None = None,
    ) -> None:
        """`pool` reads images and masks ahead of use; without a `cache` features are computed anew each epoch.

        pictures, kept: images and encoder passes of earlier runs.
        """
        self.samples, self.seed, self.device, self.pool, self.cache = tuple(samples), seed, device, pool, cache
        self.categories = {category.name: category for category in dataset.categories()}
        self._reader, self._kept = Reader(dataset, self.samples, pictures), kept
        self._asked: tuple[str, FeatureRequest] | None = None  # key of the encoder, and what of it was asked last
        self._rule, self._preprocess = dataset.card.mask_rule, preprocess
        self._masks: dict[int, bytes] = {}  # by number, as packed bits: the same in every epoch

    def batches(self, recipe: TrainRecipe, place: Place, first: int = 0) -> Iterator[TrainingStep]:
        """Yield the batches of one epoch from the `first` on; while one is used, the next is read."""
        examples, size = self.examples(recipe, place), recipe.batch_size_of(place.stage)
        ahead: TrainingStep | None = None
        for step, start in list(enumerate(range(0, len(examples), size)))[first:]:
            ready = ahead or self._read(examples[start : start + size], place, step)
            following = start + size
            ahead = None
            if following < len(examples):
                ahead = self._read(examples[following : following + size], place, step + 1)
            yield ready

    def examples(self, recipe: TrainRecipe, place: Place) -> list[Example]:
        """Return the training images of one epoch in order, mosaics and changes drawn anew."""
        rng = self.generator(place, "order")
        if recipe.groups:
            order: Iterable[int] = self._groups(recipe.groups, recipe.group_size_of(place.stage), rng)
        else:
            order = rng.permutation(len(self.samples)) if recipe.shuffle else range(len(self.samples))
        rng = self.generator(place, "mosaic")
        examples = [self._mosaic(int(number), recipe.mosaic, rng) for number in order]
        rules = recipe.stages[place.stage].augment
        if rules is None:
            return examples
        rng = self.generator(place, "change")
        return [example.changed(augment.draw_change(rules, rng)) for example in examples]

    def generator(self, place: Place, *purpose: str) -> np.random.Generator:
        """Return a generator for one purpose of one epoch."""
        return sampling.generator(self.seed, "training", *map(str, place), *purpose)

    def image(self, example: Example) -> Tensor:
        """Return a preprocessed training image [3, S, S] float32. Raises DataError."""
        parts = [self._reader.image(sample) for sample in example.samples]
        whole = augment.recolour(parts[0] if len(parts) == 1 else augment.tile(parts), example.change)
        return augment.move(apply(self._preprocess, whole), example.change)

    def is_encoded(self, example: Example) -> bool:
        """Tell whether the pixels of a training image are probably not needed."""
        if self.cache is not None and example.number in self.cache:
            return True
        if self._kept is None or self._asked is None or example.number is None:
            return False
        return self._kept.has(*self._asked, self._identities(example))

    def encode(
        self, example: Example, encoder: Encoder, request: FeatureRequest, image: Callable[[], Tensor]
    ) -> Features:
        """Return the features of one training image [1, 3, S, S], those of an earlier run where they are kept."""
        self._asked = encoder.key, request
        if self._kept is None or example.number is None:
            return encoder.encode(image(), request)
        return self._kept.encode(encoder, request, partial(self._identities, example), image)

    def _identities(self, example: Example) -> Identities:
        pixels = self._reader.identity(example.samples[0])
        return [None if pixels is None else [pixels, asdict(self._preprocess)]]

    def mask(self, example: Example) -> Tensor:
        """Return the mask of a training image [S, S] float32 of 0 and 1, resized as for the evaluation.

        Raises DataError.
        """
        side = self._preprocess.size
        packed = self._masks.get(example.number) if example.number is not None else None
        if packed is None:
            packed = np.packbits(self._read_mask(example, side)).tobytes()
            if example.number is not None:
                self._masks[example.number] = packed
        bits = np.unpackbits(np.frombuffer(packed, np.uint8), count=side * side)
        mask = torch.from_numpy(bits.reshape(side, side).astype(np.float32))
        return augment.move(mask[None], example.change)[0]

    def _read_mask(self, example: Example, side: int) -> np.ndarray:
        parts = [self._reader.mask(sample, self._rule) for sample in example.samples]
        return masks.resize_mask(parts[0] if len(parts) == 1 else augment.tile(parts), side, "bilinear_half")

    def _groups(self, groups: int, size: int, rng: np.random.Generator) -> Iterator[int]:
        """Yield the normal images of groups: of a category that has enough, without replacement inside a group."""
        normal: dict[str, list[int]] = {}
        for number, sample in enumerate(self.samples):
            if sample.label == 0:
                normal.setdefault(sample.category, []).append(number)
        enough = [numbers for numbers in normal.values() if len(numbers) >= size]
        for _ in range(groups):
            yield from rng.choice(enough[rng.integers(len(enough))], size, replace=False)

    def _mosaic(self, number: int, mosaic: float, rng: np.random.Generator) -> Example:
        sample = self.samples[number]
        if mosaic == 0 or rng.random() >= mosaic:
            return Example((sample,), number)
        same = [other for other in self.samples if other.category == sample.category]
        return Example(augment.draw(same, rng), None)

    def _read(self, examples: Sequence[Example], place: Place, step: int) -> TrainingStep:
        seed = int(self.generator(place, "step", str(step)).integers(2**63))
        return TrainingStep(self, examples, torch.Generator(self.device).manual_seed(seed))


class TrainingStep:
    """One batch of a training (contract: zsadbench.methods.TrainingBatch), with its labels and masks."""

    def __init__(self, data: TrainingData, examples: Sequence[Example], generator: torch.Generator) -> None:
        """Start reading masks, and the images whose features are not kept."""
        self.generator = generator
        self.categories: tuple[Category, ...] = tuple(data.categories[e.samples[0].category] for e in examples)
        self.paths: tuple[Path, ...] = tuple(example.samples[0].path for example in examples)
        self.files = tuple(sample.path for example in examples for sample in example.samples)
        self._data, self._examples = data, examples
        self._masks = [data.pool.submit(data.mask, example) for example in examples]
        self._images: dict[int, Future[Tensor]] = {}
        for i, example in enumerate(examples):
            if not data.is_encoded(example):
                self._decode(i)

    def __len__(self) -> int:
        """Return B, the number of images."""
        return len(self._examples)

    @property
    def images(self) -> Tensor:
        """Preprocessed images [B, 3, S, S] float32 on the device."""
        decoding = [self._decode(i) for i in range(len(self))]
        return torch.stack([future.result() for future in decoding]).to(self._data.device)

    @property
    def labels(self) -> Tensor:
        """Image labels [B] int64 on the device, 1 is anomalous."""
        return torch.tensor([example.label for example in self._examples], device=self._data.device)

    @property
    def masks(self) -> Tensor:
        """Masks [B, S, S] float32 of 0 and 1 on the device."""
        return torch.stack([future.result() for future in self._masks]).to(self._data.device)

    def features(self, encoder: Encoder, request: FeatureRequest) -> Features:
        """Return the frozen encoder's results for these images, without gradients.

        Each image is encoded alone, so that its features do not depend, not even in their last bit, on which others are
        in its batch: kept features equal those that a later epoch would compute.
        """
        rows = [self._encoded(i, encoder, request) for i in range(len(self))]
        if len(rows) == 1:  # several are copied anyhow: what is kept for later epochs is not handed out
            return Features({name: rows[0].tensors[name].clone() for name in request.keys()})
        return Features.concatenate(rows, request.keys())

    def _encoded(self, i: int, encoder: Encoder, request: FeatureRequest) -> Features:
        number, cache = self._examples[i].number, self._data.cache
        kept = cache.get(number, encoder, request) if cache is not None and number is not None else None
        if kept is not None:
            return kept
        with torch.no_grad():
            features = self._data.encode(self._examples[i], encoder, request, partial(self._image, i, encoder.device))
        if cache is not None and number is not None:
            cache.put(number, encoder, features)
        return features

    def _image(self, i: int, device: str) -> Tensor:
        return self._decode(i).result()[None].to(device)

    def _decode(self, i: int) -> Future[Tensor]:
        if i not in self._images:
            self._images[i] = self._data.pool.submit(self._data.image, self._examples[i])
        return self._images[i]
