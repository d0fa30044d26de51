"""Samples -> batches. Every image of a category is decoded once and encoded once for all methods that share the pass.

A category is cut into chunks of the run's batch size, in the run's order; a Batch is a view of some of their images. A
chunk is always decoded and encoded whole, so a method's numbers never depend on which other methods ran beside it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zsadbench.datasets import Category
from zsadbench.encoders.base import Encoder
from zsadbench.encoders.features import FeatureRequest, Features
from zsadbench.encoders.kept import Identities, KeptPasses
from zsadbench.methods import Method
from zsadbench.support.spill import Parked, Spill

RECENT = 2  # chunks whose images stay in memory: the current one, and one that a batch may straddle
FEATURE_BUDGET = 2**30  # bytes of features kept in memory before the oldest chunks are parked on disk


class ChunkStore:
    """Decoded images and encoder features of one category's chunks, computed once and bounded in memory.

    With a `spill`, features of all chunks stay available: in memory up to `budget` bytes, then on disk. Without one,
    only the most recent chunks are kept, which is enough when no method looks back.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        size: int,
        read: Callable[[Path], Tensor],
        device: torch.device | str = "cpu",
        *,
        pool: Executor | None = None,
        spill: Spill | None = None,
        budget: int = FEATURE_BUDGET,
        sealed: bool = False,
        kept: KeptPasses | None = None,
        identify: Callable[[Path], Any] = lambda path: None,
    ) -> None:
        """`read` turns a path into a preprocessed image [3, S, S]; `pool` decodes ahead of use.

        sealed: note what is lent, for `changed`. kept: passes of earlier runs; `identify` then tells what `read` would
        return, without decoding (a JSON value; None: it cannot tell).
        """
        self.paths = tuple(paths)
        self.size = size
        self.expected: dict[str, FeatureRequest] = {}  # encoder key -> what the run will ask for, computed in one pass
        self._seals = _Seals() if sealed else None
        self._closed = False
        self._kept, self._identify = kept, identify
        self.parked = 0  # bytes of features that were put on disk
        self._looked_at = False  # whether images were wanted although their features were kept
        self._read, self._device, self._pool, self._spill, self._budget = read, device, pool, spill, budget
        self._decoding: dict[int, list[Future[Tensor]]] = {}
        self._images: OrderedDict[int, Tensor] = OrderedDict()
        self._features: OrderedDict[tuple[int, str], Features] = OrderedDict()

    def __len__(self) -> int:
        """Return the number of chunks."""
        return -(-len(self.paths) // self.size)

    def prefetch(self, chunk: int) -> None:
        """Start decoding a chunk in the pool, if it exists and is not there yet; forget what nobody fetched."""
        self._decoding = {ahead: futures for ahead, futures in self._decoding.items() if ahead > chunk - RECENT}
        known = chunk in self._images or chunk in self._decoding
        if self._pool is not None and chunk < len(self) and not known and not self._skips(chunk):
            self._decoding[chunk] = [self._pool.submit(self._read, path) for path in self._chunk_paths(chunk)]

    def images(self, chunk: int) -> Tensor:
        """Return the images of a chunk: [B, 3, S, S] float32 on the device."""
        if chunk not in self._images:
            self._looked_at = self._looked_at or self._skips(chunk)
            futures = self._decoding.pop(chunk, None)
            rows = (
                [future.result() for future in futures]
                if futures
                else [self._read(path) for path in self._chunk_paths(chunk)]
            )
            self._images[chunk] = torch.stack(rows).to(self._device, non_blocking=True)
            while len(self._images) > RECENT:
                self._images.popitem(last=False)
        return self._images[chunk]

    def features(self, chunk: int, encoder: Encoder, request: FeatureRequest) -> Features:
        """Return at least the requested features of a chunk, encoding it if they are not there yet."""
        if self._closed:
            raise RuntimeError("this call was given up")
        key = (chunk, encoder.key)
        if key not in self._features or not self._features[key].covers(request):
            wanted = request | self.expected.get(encoder.key, FeatureRequest())
            self._release(key)
            self._features[key] = self._encode(chunk, encoder, wanted)
            self._features.move_to_end(key)
            self._bound_memory()
        if self._seals is not None and not isinstance(self._features[key].tensors, _Parked):
            self._seals.lend(key, self._features[key], request.keys())
        return self._features[key]

    def changed(self, lately: bool = False) -> list[str]:
        """Return the names of features that were changed by who was lent them; nothing if that is not noted.

        lately: look only at what was lent since the last look.
        """
        return self._seals.broken(lately) if self._seals is not None else []

    def close(self) -> None:
        """Compute nothing more: whoever still asks is a call that was given up."""
        self._closed = True

    def forget(self) -> None:
        """Drop all features, which are computed anew when they are asked for."""
        self._features.clear()
        if self._seals is not None:
            self._seals = _Seals()

    def _encode(self, chunk: int, encoder: Encoder, request: FeatureRequest) -> Features:
        images = partial(self.images, chunk)
        if self._kept is None:
            return encoder.encode(images(), request)
        return self._kept.encode(encoder, request, partial(self._identities, chunk), images)

    def _skips(self, chunk: int) -> bool:
        """Tell whether the images of a chunk will probably not be needed: all features are kept that a run expects."""
        if self._kept is None or self._looked_at or not self.expected:
            return False
        identities = self._identities(chunk)
        return all(self._kept.has(key, request, identities) for key, request in self.expected.items())

    def _identities(self, chunk: int) -> Identities:
        return [self._identify(path) for path in self._chunk_paths(chunk)]

    def _release(self, key: tuple[int, str]) -> None:
        if self._seals is not None:
            self._seals.release(key)

    def _chunk_paths(self, chunk: int) -> tuple[Path, ...]:
        return self.paths[chunk * self.size : (chunk + 1) * self.size]

    def _bound_memory(self) -> None:
        """Park the oldest features (with a spill) or forget them (without)."""
        if self._spill is None:
            while len(self._features) > RECENT:
                self._release(self._features.popitem(last=False)[0])
            return
        held = {
            key: _bytes(features)
            for key, features in self._features.items()
            if not isinstance(features.tensors, _Parked)
        }
        excess = sum(held.values()) - self._budget
        for key, size in list(held.items())[:-1]:  # the newest is about to be used
            if excess <= 0:
                return
            self._release(key)
            self._features[key] = Features(_Parked(self._spill, self._features[key].tensors))
            self.parked += size
            excess -= size


class _Seals:
    """Digests of the features in memory that methods were lent: every method gets views of the same tensors."""

    def __init__(self) -> None:
        self._digests: dict[tuple[int, str], dict[str, tuple[Tensor, Tensor]]] = {}
        self._lent: set[tuple[int, str]] = set()  # since they were looked at
        self._broken: set[str] = set()

    def lend(self, key: tuple[int, str], features: Features, names: Iterable[str]) -> None:
        """Note features of a chunk, in memory, that a method gets to see."""
        known = self._digests.setdefault(key, {})
        for name in names:
            if name not in known:
                known[name] = features.tensors[name], digest(features.tensors[name])
        self._lent.add(key)

    def release(self, key: tuple[int, str]) -> None:
        """Look at features for the last time, before they leave memory."""
        self._look(key)
        self._lent.discard(key)
        self._digests.pop(key, None)

    def broken(self, lately: bool) -> list[str]:
        """Return the names of features that were changed."""
        for key in self._lent if lately else self._digests:
            self._look(key)
        self._lent.clear()
        return sorted(self._broken)

    def _look(self, key: tuple[int, str]) -> None:
        for name, (tensor, before) in self._digests.get(key, {}).items():
            if not torch.equal(digest(tensor), before):
                self._broken.add(name)


def digest(tensor: Tensor) -> Tensor:
    """Return a sum over the bits of each row of a tensor: [..., n] float32 -> [...] int32. Copies nothing."""
    return tensor.view(torch.int32).sum(dim=-1, dtype=torch.int32)


class _Parked(Mapping[str, Tensor]):
    """Features on disk, each tensor read when it is asked for."""

    def __init__(self, spill: Spill, tensors: Mapping[str, Tensor]) -> None:
        self._spill = spill
        self._where: dict[str, Parked] = {name: spill.write(tensor) for name, tensor in tensors.items()}

    def __getitem__(self, name: str) -> Tensor:
        return self._spill.read(self._where[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __len__(self) -> int:
        return len(self._where)


class Part(NamedTuple):
    """Images start..stop of one chunk."""

    chunk: int
    start: int
    stop: int


class ImageBatch:
    """The Batch that methods get (contract: zsadbench.methods.Batch): a view of some images of a category."""

    def __init__(self, store: ChunkStore, category: Category, parts: Sequence[Part]) -> None:
        """Look at some parts of a store's chunks, in order."""
        self.category = category
        self._store = store
        self._parts = tuple(parts)
        self.paths = tuple(store.paths[p.chunk * store.size + i] for p in self._parts for i in range(p.start, p.stop))

    def __len__(self) -> int:
        """Return B, the number of images."""
        return sum(part.stop - part.start for part in self._parts)

    @property
    def images(self) -> Tensor:
        """Preprocessed images [B, 3, S, S] float32 on the device."""
        return torch.cat([self._store.images(part.chunk)[part.start : part.stop] for part in self._parts])

    def features(self, encoder: Encoder, request: FeatureRequest) -> Features:
        """Return the encoder's results for these images; their chunks are encoded once for all methods."""
        keys = request.keys()
        parts = [_rows(self._store.features(p.chunk, encoder, request), p, keys) for p in self._parts]
        return Features.concatenate(parts, keys)

    def split(self, size: int | None = None) -> Iterator[ImageBatch]:
        """Walk the batch in parts of `size` images (None: chunk by chunk), in order; may be repeated."""
        size = size or self._store.size
        pending: list[Part] = []
        room = size
        for part in self._parts:
            start = part.start
            while start < part.stop:
                stop = min(part.stop, start + room)
                pending.append(Part(part.chunk, start, stop))
                room -= stop - start
                start = stop
                if room == 0:
                    yield ImageBatch(self._store, self.category, pending)
                    pending, room = [], size
        if pending:
            yield ImageBatch(self._store, self.category, pending)


def _rows(features: Features, part: Part, keys: frozenset[str]) -> Features:
    return Features({key: features.tensors[key][part.start : part.stop] for key in keys})


def _bytes(features: Features) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in features.tensors.values())


def batch_of(store: ChunkStore, category: Category, start: int, stop: int) -> ImageBatch:
    """Return the batch of images start..stop of the run's order; positions past the end wrap to its start."""
    count, size = len(store.paths), store.size
    parts: list[Part] = []
    while start < stop:
        position = start % count
        chunk = position // size
        upto = min(stop - start, min((chunk + 1) * size, count) - position)
        parts.append(Part(chunk, position - chunk * size, position - chunk * size + upto))
        start += upto
    return ImageBatch(store, category, parts)


def scored_batches(store: ChunkStore, category: Category, method: Method) -> Iterator[tuple[int, int, ImageBatch]]:
    """Yield (start, stop, batch): which batch scores images start..stop of the order, by the method's scope."""
    count = len(store.paths)
    if method.scope == "category":
        yield 0, count, batch_of(store, category, 0, count)
        return
    size = store.size if method.scope == "image" else method.batch_images or store.size
    for start in range(0, count, size):
        stop = min(start + size, count)
        # A short last batch of mutual references is filled up from the start of the order; extras are not scored.
        filled = start + size if method.scope == "batch" else stop
        yield start, stop, batch_of(store, category, start, filled)


def from_tensor(images: Tensor, category: Category, paths: Sequence[Path] | None = None) -> ImageBatch:
    """Make a batch of preprocessed images [B, 3, S, S] that are already in memory (tests, notebooks)."""
    paths = tuple(paths) if paths is not None else tuple(Path(f"image_{i}.png") for i in range(len(images)))
    rows = dict(zip(paths, images, strict=True))
    store = ChunkStore(paths, max(len(paths), 1), rows.__getitem__, images.device)
    return batch_of(store, category, 0, len(paths))
