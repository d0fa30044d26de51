"""Predictions of one category against its ground truth -> metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import asdict
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from zsadbench import metrics
from zsadbench.components import postprocess
from zsadbench.data import masks
from zsadbench.data.masks import Lost
from zsadbench.data.pictures import Pictures
from zsadbench.data.reading import Reader
from zsadbench.datasets import Dataset, Sample
from zsadbench.methods import Method
from zsadbench.metrics.histograms import Histograms, pixel_histograms
from zsadbench.metrics.measure import image_metrics
from zsadbench.metrics.pixels import PixelCounts
from zsadbench.protocol import EvaluationProtocol


class Evaluation(NamedTuple):
    """The metrics of one cell in 0..1 (None: undefined) and the facts behind them."""

    image: dict[str, float | None]
    pixel: dict[str, float | None]
    details: dict[str, Any]
    histograms: Histograms | None = None  # of the pixels of each image; None where the pixel metrics are undefined


class GroundTruth:
    """Labels and masks of one category, each mask read once for all methods that share an evaluation size."""

    def __init__(
        self,
        dataset: Dataset,
        samples: Sequence[Sample],
        protocol: EvaluationProtocol,
        pool: Executor,
        pictures: Pictures | None = None,
    ) -> None:
        """Nothing is read before `masks` is called. pictures: reads image files, and keeps them between runs."""
        self.samples = tuple(samples)
        self.names = [dataset.sample_id(sample) for sample in samples]
        self.labels = np.array([sample.label for sample in samples])
        self.has_masks = dataset.card.pixel_level
        self.reader = Reader(dataset, self.samples, pictures)
        self._rule = dataset.card.mask_rule if protocol.native_masks == "dataset" else protocol.native_masks
        self._protocol, self._pool = protocol, pool
        self._masks: dict[int | None, list[np.ndarray]] = {}
        self._lost: dict[int | None, Lost] = {}  # by evaluation size
        self._lock = Lock()  # several cells are evaluated at once

    def masks(self, side: int | None) -> list[np.ndarray]:
        """Return one bool mask a sample: [side, side] each, or native [H, W] for None. Raises DataError."""
        with self._lock:
            if side not in self._masks:
                read = list(self._pool.map(lambda sample: self._mask(sample, side), self.samples))
                self._masks[side] = [mask for mask, _ in read]
                self._lost[side] = Lost(*map(sum, zip(*(lost for _, lost in read), strict=True)))
            return self._masks[side]

    def lost_regions(self, side: int | None) -> Lost:
        """Return how many defect regions have no pixel at an evaluation size whose masks were read."""
        return self._lost[side]

    def native_size(self, index: int) -> tuple[int, int]:
        """Return (H, W) of a sample's own pixels, without decoding its image. Raises DataError."""
        sample = self.samples[index]
        height, width = sample.cut(np.empty(self.reader.size(sample), bool)).shape
        return height, width

    def _mask(self, sample: Sample, side: int | None) -> tuple[np.ndarray, Lost]:
        """Return the mask of a sample, and which of its regions the evaluation size loses."""
        if sample.label == 0 and side is not None:  # a normal image's mask is empty at any size: do not open the image
            return np.zeros((side, side), bool), Lost(0, 0)
        native = self.reader.mask(sample, self._rule)
        mask = native if side is None else masks.resize_mask(native, side, self._protocol.mask_rule)
        return mask, masks.lost_regions(native, mask)


def evaluate(
    truth: GroundTruth,
    method: Method,
    scores: np.ndarray,
    maps: Callable[[], Iterable[tuple[int, Tensor]]],
    protocol: EvaluationProtocol,
) -> Evaluation:
    """Compute all metrics of a cell.

    `scores` is [N]; each call of `maps` yields (index of the first image, maps [B, h, w] as predicted), together N
    images in order. It is called twice: histograms need edges, and good edges are known once all scores are counted.
    """
    image = _defined(image_metrics(scores, truth.labels, names=truth.names))
    details: dict[str, Any] = {"normal": int((truth.labels == 0).sum()), "anomalous": int((truth.labels == 1).sum())}
    if not truth.has_masks:
        return Evaluation(image, dict.fromkeys(metrics.names("pixel")), details | _odd(truth))
    counts = PixelCounts(aupro_limit=protocol.aupro_limit)
    for start, finished, masks_ in _pixels(truth, method, maps(), protocol):
        counts.update(finished, masks_, truth.names[start : start + len(finished)])
    pixel = _defined(counts.compute())
    lost = truth.lost_regions(_side(method, protocol))
    details["pixel"] = counts.facts() | {"native_regions": lost.regions, "lost_regions": lost.lost}
    details |= _odd(truth)
    if pixel["auroc"] is None:
        return Evaluation(image, pixel, details)
    again = (pair for _, *batch in _pixels(truth, method, maps(), protocol) for pair in zip(*batch, strict=True))
    return Evaluation(image, pixel, details, pixel_histograms(again, counts.edges()))


def _odd(truth: GroundTruth) -> dict[str, Any]:
    """Return what is odd about the files, for the record; nothing where nothing is."""
    odd = {kind: asdict(oddity) for kind, oddity in truth.reader.oddities(truth.samples).items()}
    return {"odd": odd} if odd else {}


def _pixels(
    truth: GroundTruth, method: Method, maps: Iterable[tuple[int, Tensor]], protocol: EvaluationProtocol
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield (first image, finished maps [B, H, W] float32, masks [B, H, W] bool)."""
    expected = truth.masks(_side(method, protocol))
    for start, finished in finished_maps(truth, method, maps, protocol):
        yield start, finished, np.stack(expected[start : start + len(finished)])


def _defined(values: dict[str, float | None]) -> dict[str, float | None]:
    """Without one of the two classes no metric says anything, although some have a value (docs/metrics.md)."""
    return values if values["auroc"] is not None else dict.fromkeys(values)


def finished_maps(
    truth: GroundTruth, method: Method, maps: Iterable[tuple[int, Tensor]], protocol: EvaluationProtocol
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (first image, maps [B, H, W] at the evaluation size), smoothed, as float32 arrays."""
    side = _side(method, protocol)
    for start, predicted in maps:
        if side is not None:
            yield start, _numpy(postprocess.finish(predicted, method, (side, side)))
        else:
            for i in range(len(predicted)):
                size = truth.native_size(start + i)
                yield start + i, _numpy(postprocess.finish(predicted[i : i + 1], method, size))


def _side(method: Method, protocol: EvaluationProtocol) -> int | None:
    if protocol.eval_size == "native":
        return None
    return method.preprocess.size if protocol.eval_size == "input" else protocol.eval_size


def _numpy(maps: Tensor) -> np.ndarray:
    return maps.to(dtype=torch.float32, device="cpu").numpy()
