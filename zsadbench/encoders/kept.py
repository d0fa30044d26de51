"""Encoder passes over images and sentences, kept between runs by what they hold and what the encoder is.

The bits of a pass depend on more than its images: on how many are encoded at once, on the versions of the libraries, on
the processor and on torch's settings. All of that is part of what an entry is kept under, so that a pass is replaced
only by one that would have given the same bits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zsadbench.encoders.base import Encoder
from zsadbench.encoders.features import FeatureRequest, Features
from zsadbench.encoders.watch import Watch
from zsadbench.support import environment, files, meters, shared_state, source
from zsadbench.support.store import Shelf, Store

CODE = ("data/images.py", "data/reading.py", "datasets.py", "encoders")  # which decides features
Identities = Sequence[Any]  # one JSON value an image that tells its pixels from all others; None: not known


class KeptPasses:
    """The passes of one encoder, of which none is kept once a guest has changed it or torch's settings."""

    def __init__(self, encoder: Encoder, watch: Watch, store: Store) -> None:
        """`watch` was made when the encoder was loaded."""
        self._encoder, self._watch, self._settings = encoder, watch, shared_state.of_numbers()
        self._key = encoder.key
        about = {
            "encoder": encoder.identity,
            "code": source.of_harness(CODE),
            "made with": environment.describe(encoder.device),
            "processor": [meters.processor(encoder.device), torch.backends.cpu.get_cpu_capability()],
            "settings": self._settings,
        }
        # Weights without a digest, as tests make them, are not told from others.
        known = re.fullmatch("[0-9a-f]{64}", encoder.sha256) is not None
        self._shelf = store.shelf({"kind": "features", **about}) if known else None
        self._sentences = store.shelf({"kind": "sentences", **about}) if known else None

    def has(self, encoder: str, request: FeatureRequest, identities: Identities) -> bool:
        """Tell whether `encode` would find everything of the encoder with a key; not if nothing is asked for."""
        names = request.keys()
        if self._shelf is None or encoder != self._key or not names or None in identities:
            return False
        return all(map(self._shelf.has, _keys(identities, names)))

    def encode(
        self,
        encoder: Encoder,
        request: FeatureRequest,
        identities: Callable[[], Identities],
        images: Callable[[], Tensor],
    ) -> Features:
        """Return what `encoder.encode` returns, from the store where all of it is there.

        identities: asked once more after a pass, when the images have been read. images: [B, 3, S, S], not called
        for what is kept.
        """
        if self._shelf is None or encoder is not self._encoder:
            return encoder.encode(images(), request)
        names, before = sorted(request.keys()), identities()
        found = {} if None in before else self._found(before, names)
        if len(found) == len(names):
            return Features(found)
        features = encoder.encode(images(), request)
        after = identities()
        if None not in after and self._is_unchanged():
            for name, key in zip(names, _keys(after, names), strict=True):
                if not self._shelf.has(key):
                    _put(self._shelf, key, features.tensors[name])
        return features

    def sentences(self, sentences: Sequence[str], batch_size: int, compute: Callable[[], Tensor]) -> Tensor:
        """Return what `compute` returns for sentences of the encoder's text tower [K, J], or returned once before."""
        if self._sentences is None:
            return compute()
        key = files.fingerprint({"sentences": list(sentences), "batch_size": batch_size})
        found = self._get(self._sentences, key)
        if found is None:
            found = compute()
            if self._is_unchanged():
                _put(self._sentences, key, found)
        return found

    def _is_unchanged(self) -> bool:
        """Tell whether the pass that just ended was one of this encoder at these settings: a guest may be at work."""
        return shared_state.of_numbers() == self._settings and not self._watch.changed()

    def _found(self, identities: Identities, names: Sequence[str]) -> dict[str, Tensor]:
        assert self._shelf is not None
        looked_up = {
            name: self._get(self._shelf, key) for name, key in zip(names, _keys(identities, names), strict=True)
        }
        return {name: tensor for name, tensor in looked_up.items() if tensor is not None}

    def _get(self, shelf: Shelf, key: str) -> Tensor | None:
        entry = shelf.get(key)
        if entry is None:
            return None
        return torch.from_numpy(entry.content.view(np.float32)).reshape(entry.facts["shape"]).to(self._encoder.device)


def passes(encoder: Encoder | None, watch: Watch | None, store: Store | None) -> KeptPasses | None:
    """Return the kept passes of an encoder; None without one, or without a store. Its text tower uses them too."""
    if encoder is None or watch is None:
        return None
    kept = KeptPasses(encoder, watch, store) if store is not None else None
    if encoder.text is not None:
        encoder.text.keeper[:] = [kept] if kept is not None else []
    return kept


def _put(shelf: Shelf, key: str, values: Tensor) -> None:
    shelf.put(key, {"shape": list(values.shape)}, values.cpu().numpy())


def _keys(identities: Identities, names: Iterable[str]) -> list[str]:
    """Return what the tensors of a pass over some images are kept under."""
    images = files.fingerprint({"images": list(identities)})
    return [f"{images}-{name}" for name in names]
