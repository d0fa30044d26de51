"""The contracts as executable checks for plugin authors: `check_method("my_method")`, `check_dataset(dataset)`.

Each failed check is an AssertionError that says which rule of `zsadbench.methods` was broken.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zsadbench import encoders, methods
from zsadbench.datasets import Category
from zsadbench.encoders.base import Encoder
from zsadbench.encoders.features import FeatureRequest, Features
from zsadbench.encoders.watch import Watch
from zsadbench.methods import Method, Prediction, TrainableMethod
from zsadbench.running import contract, loading
from zsadbench.running.isolation import Shared
from zsadbench.support import calls
from zsadbench.testing.dataset import check_dataset

__all__ = ["check_dataset", "check_method", "toy_images"]

RTOL, ATOL = 1e-4, 1e-5  # float32 sums in another order; a wrong formula is off by far more


def toy_images(count: int, size: int, seed: int = 0) -> Tensor:
    """Return smooth random images with one odd square each: [count, 3, size, size] float32, roughly normalised."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, 6, 6, generator=generator)
    images = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=False)
    for i in range(count):
        row, column = torch.randint(0, size - size // 4, (2,), generator=generator).tolist()
        images[i, :, row : row + size // 4, column : column + size // 4] += 2 * (i % 2)
    return images


def check_method(name: str, encoder: str | Encoder = "tiny", count: int = 6, **changes: Any) -> None:
    """Hold a method to its contract on `count` toy images with a small encoder.

    Checks: shape, dtype and finiteness; determinism; that nothing which others use is changed while it is made,
    remembers or predicts (features, images, the encoder, settings of torch, numpy and the process); no gradients kept;
    that `request` covers what predict asks for, so that runs can share passes; and what `scope` and `image_scope`
    promise: "image" results depend on that image alone, "batch" and "category" results move with their images when the
    order changes. Raises AssertionError or ContractError that says what is wrong.

    Example:

        >>> import zsadbench as z
        >>> z.check_method("winclip", encoder="demo")
    """
    kind, full, config = methods.configure(name, encoder if isinstance(encoder, str) else None, changes)
    guest = _Guest(full, kind, encoders.load_for(config) if isinstance(encoder, str) else encoder)
    method: Method = guest.call(partial(_made, kind, full, config, guest.encoder))
    category = Category("metal_nut", "metal nut", "toy")
    images = toy_images(count, method.preprocess.size)
    if method.shots:
        store, references = _batch(toy_images(method.shots, method.preprocess.size, seed=1), category, "reference")
        guest.call(partial(method.remember, references), store)
    if not changes:
        _check_card(method)
    before = images.clone()
    first = _predict(guest, method, images, category)
    assert torch.equal(images, before), f"{name} changed its input images; expected them untouched"
    again = _predict(guest, method, images, category)
    _assert_same(first, again, f"{name} is not deterministic", exact=True)
    assert not first.scores.requires_grad and not first.maps.requires_grad, f"{name} keeps gradients in its prediction"
    if method.scope == "image":
        _check_image_scope(guest, method, images, category)
    if method.scope != "image" or contract.waits(method):
        _check_permutation(guest, method, images, category, first)


class _Guest:
    """Calls a method as a run does, and fails where it changes what others use; each call draws other numbers."""

    def __init__(self, name: str, kind: type[Method], encoder: Encoder | None) -> None:
        self.encoder = encoder
        self._plugin = calls.Plugin(name, kind)
        self._watch = Watch(encoder) if encoder is not None else None
        self._calls = 0

    @torch.inference_mode()
    def call(self, action: Callable[[], Any], store: loading.ChunkStore | None = None) -> Any:
        """Return what an action returns."""
        self._calls += 1
        try:
            return calls.call(self._plugin, action, self._calls, shared=Shared(self.encoder, self._watch, store))
        except calls.Harm as error:
            raise AssertionError(str(error)) from None


def _made(kind: type[Method], name: str, config: Any, encoder: Encoder | None) -> Method:
    method = methods.build(kind, name, config, encoder)
    if isinstance(method, TrainableMethod):
        method.initialise(seed=0)
    return method


def _check_card(method: Method) -> None:
    """The card tells how many references the default preset takes: listings read it without importing the method."""
    if "." not in method.name:
        taken, told = method.shots, method.card.shots
        assert taken == told, f"{method.name} takes {taken} references, but its card says shots={told}"


def _predict(guest: _Guest, method: Method, images: Tensor, category: Category) -> Prediction:
    """Predict all images in the batches that the method's scope asks for, and finalise them."""
    scores, maps = _predict_apart(guest, method, images, category)
    if not contract.waits(method):
        return Prediction(scores, maps)
    paths = [Path(f"image_{i}.png") for i in range(len(images))]
    final = guest.call(partial(contract.finalise, method, scores, paths))
    return Prediction(final.scores, final.scaled(maps))


def _predict_apart(guest: _Guest, method: Method, images: Tensor, category: Category) -> Prediction:
    """Predict all images in the batches that the method's scope asks for; none knows of those of another."""
    size = method.batch_images if method.scope == "batch" and method.batch_images else len(images)
    store, whole = _batch(images, category, "image")
    parts: list[Prediction] = []
    for batch in whole.split(size):
        parts.append(guest.call(partial(contract.predict, method, batch), store))
    extra = store.asked.keys() - method.request.keys()
    assert not extra, f"{method.name}.request does not declare {', '.join(sorted(extra))}, which predict() asks for"
    return Prediction(torch.cat([part.scores for part in parts]), torch.cat([part.maps for part in parts]))


def _check_image_scope(guest: _Guest, method: Method, images: Tensor, category: Category) -> None:
    whole = _predict_apart(guest, method, images, category)
    for i in range(len(images)):
        alone = _predict_apart(guest, method, images[i : i + 1], category)
        expected = Prediction(whole.scores[i : i + 1], whole.maps[i : i + 1])
        _assert_same(alone, expected, f'{method.name} has scope "image", but image {i} scores differently alone')


def _check_permutation(guest: _Guest, method: Method, images: Tensor, category: Category, expected: Prediction) -> None:
    """Reverse the order within each batch: every image must keep its result."""
    size = method.batch_images if method.scope == "batch" and method.batch_images else len(images)
    order = torch.cat([chunk.flip(0) for chunk in torch.split(torch.arange(len(images)), size)])
    moved = _predict(guest, method, images[order], category)
    back = Prediction(moved.scores[order.argsort()], moved.maps[order.argsort()])
    _assert_same(
        back,
        expected,
        f'{method.name} has scope "{method.scope}" and image scope "{method.image_scope}", but results depend on the '
        "order of its images",
    )


def _assert_same(got: Prediction, expected: Prediction, message: str, exact: bool = False) -> None:
    for field, one, other in zip(Prediction._fields, got, expected, strict=True):
        same = torch.equal(one, other) if exact else torch.allclose(one, other, RTOL, ATOL)
        assert same, f"{message}: {field} differ by up to {(one - other).abs().max():.3g}"


class _WatchedStore(loading.ChunkStore):
    """A store that notes which features are asked for."""

    asked = FeatureRequest()

    def features(self, chunk: int, encoder: Encoder, request: FeatureRequest) -> Features:
        self.asked = self.asked | request
        return super().features(chunk, encoder, request)


def _batch(images: Tensor, category: Category, name: str) -> tuple[_WatchedStore, loading.ImageBatch]:
    rows = {Path(f"{name}_{i}.png"): image for i, image in enumerate(images)}
    store = _WatchedStore(tuple(rows), len(rows), rows.__getitem__, images.device, sealed=True)
    return store, loading.batch_of(store, category, 0, len(rows))
