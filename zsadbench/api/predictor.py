"""A method on images of one's own: scores and anomaly maps, without a data set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image

from zsadbench import methods
from zsadbench.components import postprocess
from zsadbench.data.images import DECODERS, apply, convert_image, decode_image
from zsadbench.datasets import Category
from zsadbench.encoders import weights as weight_files
from zsadbench.errors import DataError, UsageError, WeightsError
from zsadbench.methods import Method, Prediction, TrainableMethod
from zsadbench.running import contract
from zsadbench.running.loading import ChunkStore, batch_of, scored_batches
from zsadbench.support.spill import Spill

AnyImage = str | Path | Image | NDArray[Any]


class ImagePrediction(NamedTuple):
    """The result for one image."""

    name: str  # its path, or "image 0" and so on for what came without one
    score: float  # higher is more anomalous; no probability unless the method says so
    map: NDArray[np.float32]  # [H, W] at the image's own size, higher is more anomalous, smoothed as the method asks


class Predictions(NamedTuple):
    """The results for some images, in their order."""

    names: list[str]  # see ImagePrediction
    scores: NDArray[np.float32]  # [B]
    maps: list[NDArray[np.float32]]  # B times [H, W], each at its image's own size


class Predictor:
    """A method that is ready to predict, with its encoder and weights. Made by `zsadbench.load`."""

    def __init__(self, method: Method, device: str) -> None:
        self.method, self.device = method, device

    def predict(
        self,
        images: AnyImage | Iterable[AnyImage],
        noun: str = "object",
        *,
        normal: Iterable[AnyImage] = (),
        batch_size: int = 8,
    ) -> Predictions:
        """Score images and return their scores and maps; keyword arguments as `stream`.

        Example:

            >>> import numpy as np
            >>> import zsadbench as z
            >>> photos = [np.zeros((40, 60, 3), np.uint8), np.full((30, 30), 255, np.uint8)]
            >>> result = z.load("constant").predict(photos, noun="bottle")
            >>> result.scores.shape, [map.shape for map in result.maps]
            ((2,), [(40, 60), (30, 30)])
        """
        found = list(self.stream(images, noun, normal=normal, batch_size=batch_size))
        return Predictions(
            [one.name for one in found], np.array([one.score for one in found], np.float32), [one.map for one in found]
        )

    @torch.inference_mode()
    def stream(
        self,
        images: AnyImage | Iterable[AnyImage],
        noun: str = "object",
        *,
        normal: Iterable[AnyImage] = (),
        batch_size: int = 8,
    ) -> Iterator[ImagePrediction]:
        """Yield the result of each image in order; a method of scope "image" holds few images at a time.

        images: paths, PIL images, or arrays [H, W], [H, W, 3] (RGB) or [H, W, 4] of uint8 or uint16, of any sizes; one
        alone needs no list. Alpha is dropped, 16 bits keep their high byte, and EXIF orientations are not applied, as
        in runs. noun: what they show, for prompts. normal: reference images of a few-shot method. batch_size: images
        an encoder pass. Methods of scope "batch" compare the images of a batch, those of scope "category" all of them,
        and those of image scope "category" scale scores over all of them: their results depend on what is given
        together. Raises DataError naming the image, NeedsCheckpoint, and UsageError for references that a method needs
        or has no use for.

        Example:

            >>> import numpy as np
            >>> import zsadbench as z
            >>> for one in z.load("constant").stream([np.zeros((40, 60), np.uint8)]):
            ...     print(one.name, one.score, one.map.shape, one.map.dtype)
            image 0 0.0 (40, 60) float32
        """
        if batch_size < 1:
            raise UsageError(f"batch_size is {batch_size}; expected at least 1 image a pass.")
        method, category = self.method, Category(noun, noun, "images")
        references = _as_list(normal)
        if method.shots != len(references) and (method.shots or references):
            raise UsageError(
                f"{method.name} takes {method.shots} normal images, got {len(references)}; give as many, or set the "
                "option `shots`."
                if method.shots
                else f"{method.name} has no use for normal images; leave `normal` out."
            )
        given = _Images(_as_list(images), method)
        if not given.images:
            raise UsageError("there are no images to predict; give at least one.")
        with TemporaryDirectory(prefix="zsadbench-") as folder, closing(Spill(Path(folder))) as spill:
            with ThreadPoolExecutor(DECODERS) as pool:
                if references:
                    memory = _Images(references, method)
                    store = ChunkStore(memory.paths, batch_size, memory.read, self.device, pool=pool)
                    method.remember(batch_of(store, category, 0, len(references)))
                keep = spill if method.scope != "image" else None
                store = ChunkStore(given.paths, batch_size, given.read, self.device, pool=pool, spill=keep)
                steps = scored_batches(store, category, method)
                predicted = ((start, stop, contract.predict(method, batch)) for start, stop, batch in steps)
                waits = contract.waits(method)
                for start, stop, prediction in _finalised(predicted, method, given, spill) if waits else predicted:
                    for i, index in enumerate(range(start, stop)):
                        finished = postprocess.finish(prediction.maps[i : i + 1], method, given.size(index))[0]
                        yield ImagePrediction(given.names[index], float(prediction.scores[i]), finished.cpu().numpy())


def _finalised(
    predicted: Iterator[tuple[int, int, Prediction]], method: Method, given: _Images, spill: Spill
) -> Iterator[tuple[int, int, Prediction]]:
    """Yield predictions with the scores that are made of those of all images; maps wait on disk."""
    parked = [(start, stop, made.scores, spill.write(made.maps)) for start, stop, made in predicted]
    scores = torch.cat([scores[: stop - start] for start, stop, scores, _ in parked])
    final = contract.finalise(method, scores, given.paths)
    for start, stop, _, maps in parked:
        yield start, stop, Prediction(final.scores[start:stop], final.scaled(spill.read(maps)))


class _Images:
    """Images from anywhere, under paths that tell them apart."""

    def __init__(self, images: Sequence[AnyImage], method: Method) -> None:
        self.images, self._method = images, method
        self.names = [str(one) if isinstance(one, str | Path) else f"image {i}" for i, one in enumerate(images)]
        self.paths = tuple(Path(f"{i}") for i in range(len(images)))
        self._sizes: dict[int, tuple[int, int]] = {}  # (H, W) of what has been read

    def read(self, path: Path) -> torch.Tensor:
        """Return a preprocessed image [3, S, S] float32. Raises DataError naming the image."""
        index = int(path.name)
        pixels = _pixels(self.images[index], self.names[index])
        if not pixels.size:
            raise DataError(f"{self.names[index]} has no pixels: its shape is {list(pixels.shape)}.")
        self._sizes[index] = pixels.shape[0], pixels.shape[1]
        return apply(self._method.preprocess, pixels)

    def size(self, index: int) -> tuple[int, int]:
        """Return (H, W) of an image; one that the method did not look at is read for it. Raises DataError."""
        if index not in self._sizes:
            self.read(self.paths[index])
        return self._sizes[index]


def _pixels(image: AnyImage, name: str) -> NDArray[np.uint8]:
    """Return RGB [H, W, 3] uint8."""
    if isinstance(image, str | Path):
        if Path(image).is_dir():
            raise DataError(f"{name} is a folder; expected an image. Give the paths of its files.")
        return decode_image(Path(image))
    if isinstance(image, Image):
        return convert_image(image, name)
    if not isinstance(image, np.ndarray):
        raise DataError(f"{name} is a {type(image).__name__}; expected a path, a PIL image or a NumPy array.")
    known = image.dtype.kind == "u" and image.dtype.itemsize <= 2
    if not known or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3, 4)):
        raise DataError(
            f"{name} is an array of shape {list(image.shape)} and type {image.dtype}; expected [H, W], [H, W, 3] or "
            "[H, W, 4] of uint8 or uint16."
        )
    if image.dtype.itemsize == 2:
        image = (image >> 8).astype(np.uint8)  # as a file of 16 bits is read
    if image.ndim == 2 or image.shape[2] == 1:
        return np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)
    return np.ascontiguousarray(image[..., :3])


def _as_list(images: AnyImage | Iterable[AnyImage]) -> list[AnyImage]:
    if isinstance(images, str | Path | Image | np.ndarray):
        return [images]
    if not isinstance(images, Iterable):
        raise UsageError(f"got a {type(images).__name__} for images; expected paths, PIL images or NumPy arrays.")
    return list(images)


def load(
    name: str,
    *,
    checkpoint: str | Path | None = None,
    encoder: str | None = None,
    device: str = "auto",
    precision: str = "fp32",
    weights: Mapping[str, str | Path] | None = None,
    plugins: Sequence[str | Path] = (),
    **options: Any,
) -> Predictor:
    """Return a method that is ready to predict, by its name as on the command line.

    checkpoint: trained weights, a file or a folder that `zsadbench train` wrote. encoder: another SPEC. device: "auto",
    "cpu", "cuda" or "cuda:N". precision: "fp32", "bf16" or "fp16". weights: SPEC -> local file. plugins: folders with
    methods of one's own. options: fields of the method's options. Raises UnknownName, OptionError, UsageError,
    WeightsError. A trained method without a checkpoint raises NeedsCheckpoint when it predicts.

    Example:

        >>> import zsadbench as z
        >>> z.load("winclip", encoder="demo").method.card.title
        'WinCLIP'
    """
    from zsadbench.support import plugins as plugin_folders
    from zsadbench.support.meters import checked_device

    for folder in plugins:
        plugin_folders.add_folder(Path(folder))
    device = checked_device(device)
    files = {spec: Path(path) for spec, path in (weights or {}).items()}
    method = methods.create(name, encoder=encoder, device=device, precision=precision, weights=files, **options)
    if isinstance(method, TrainableMethod) and checkpoint is not None:
        method.load_checkpoint(weight_files.read_checkpoint(_weights_file(Path(checkpoint))), str(checkpoint))
    elif checkpoint is not None:
        raise UsageError(f"{name} has no trained weights; leave `checkpoint` out.")
    return Predictor(method, device)


def _weights_file(path: Path) -> Path:
    from zsadbench.training import checkpoints

    file = path / checkpoints.WEIGHTS if path.is_dir() else path
    if not file.exists():
        raise WeightsError(f"checkpoint {file} does not exist; expected weights, or a folder that `train` wrote.")
    return file
