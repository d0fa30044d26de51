"""A method as something that can be timed: passes over random images, and what the passes consist of.

A pass takes images that lie on the device, predicts them, and finishes their maps at the input size.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zsadbench.components import postprocess
from zsadbench.datasets import Category
from zsadbench.encoders.base import Encoder
from zsadbench.encoders.text import TextEncoder
from zsadbench.methods import Method
from zsadbench.records.efficiency import ProfileOptions, Timing
from zsadbench.running.loading import ChunkStore, batch_of, from_tensor
from zsadbench.support.meters import Stopwatch, count_flops, peak_memory, reset_peak
from zsadbench.support.spill import Spill

TIMED = (
    "From images [B, 3, S, S] on the device to scores and finished maps at the input size. Not timed: decoding, "
    "transfer, references, text features that a category needs once, metrics."
)
NO_GAIN = 0.97  # of the best time an image: a larger batch that saves less ends the search
OUT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory")  # torch's words, on a GPU and a CPU


class Bench:
    """Times one method; its categories are new ones, so that text features are computed where a run would."""

    def __init__(self, method: Method, device: str, options: ProfileOptions, watch: Stopwatch) -> None:
        """`method` is ready to predict; call inside `torch.inference_mode`."""
        self.method, self.device, self.options, self.watch = method, device, options, watch
        self.category = Category("", "", "synthetic")

    def images(self, batch: int) -> Tensor:
        """Return random images [n, 3, S, S] on the device for a pass whose encoder passes take `batch` of them."""
        scope, least = self.method.scope, 1
        if scope != "image":
            least = self.options.category_images if scope == "category" else self.method.batch_images or 2
        return self._random(max(batch, least))

    def predict(self, images: Tensor, batch: int) -> None:
        """Predict images as a run does: nothing is known of them, and methods that look back share a category."""
        method, scope = self.method, self.method.scope
        rows = {Path(f"{i}.png"): image for i, image in enumerate(images)}
        with closing(Spill(Path(tempfile.gettempdir()))) as spill:
            store = ChunkStore(
                tuple(rows), batch, rows.__getitem__, self.device, spill=None if scope == "image" else spill
            )
            if method.encoder is not None:
                store.expected[method.encoder.key] = method.request
            size = {"image": batch, "batch": method.batch_images, "category": None}[scope] or len(images)
            for part in batch_of(store, self.category, 0, len(images)).split(size):
                prediction = method.predict(part)
                maps = method.finalise(prediction.scores).scaled(prediction.maps)
                postprocess.finish(maps, method, method.preprocess.size)

    def text(self, prompts: Sequence[int]) -> tuple[dict[str, float], float | None]:
        """Return how many prompts pass through the text tower when, and the milliseconds that a category's take.

        prompts: grows with each pass through the tower (`watch_prompts`), from before the method was built.
        """
        batch = self.options.batches[0]
        images = self.images(batch)
        seconds, sums = [], [0]
        for name in ("part", "plate", "plate"):  # the first category ever; a new one; one that is known
            if name != self.category.name:
                self._enter(name)
            seconds.append(self.watch(lambda: self.predict(images, batch)))
            sums.append(sum(prompts))
        first, new, known = (sums[i + 1] - sums[i] for i in range(3))
        told = {"once": float(first - new), "category": float(new - known), "image": known / len(images)}
        return told, 1000 * max(seconds[1] - seconds[2], 0.0) if new > known else None

    def timings(self) -> tuple[tuple[Timing, ...], str]:
        """Return a timing a batch size, up to one that was no faster or did not fit, and why none follow."""
        found: list[Timing] = []
        for batch in self.options.batches:
            try:
                timing = self._timing(batch)
            except (MemoryError, RuntimeError) as error:
                if not found or not is_out_of_memory(error):
                    raise
                return tuple(found), f"batch {batch} does not fit into memory"
            best = min((one.median_ms for one in found), default=float("inf"))
            found.append(timing)
            if timing.median_ms > NO_GAIN * best:
                return tuple(found), f"batch {batch} is no faster"
        return tuple(found), "no larger batch was asked for"

    def flops(self) -> float:
        """Return the floating-point operations an image of a pass of a known category, at the first batch size."""
        batch = self.options.batches[0]
        images = self.images(batch)
        return count_flops(lambda: self.predict(images, batch)) / len(images)

    def encoder_timing(self, encoder: Encoder, batch: int) -> Timing:
        """Time the bare encoder pass."""
        images = self._random(batch)
        return self._timed(batch, images, lambda: encoder.encode(images, encoder.whole_pass))

    def _timing(self, batch: int) -> Timing:
        images = self.images(batch)
        return self._timed(batch, images, lambda: self.predict(images, batch))

    def _timed(self, batch: int, images: Tensor, action: Any) -> Timing:
        reset_peak(self.device)
        repeats = self.options.repeat
        spread = self.watch.repeat(action, self.options.warmup, repeats)
        median, p10, p90 = (1000 * seconds / len(images) for seconds in spread)
        return Timing(batch, len(images), repeats, median, p10, p90, peak_memory(self.device))

    def _enter(self, name: str) -> None:
        """Go on to a new category, and hand the method the references that it wants."""
        self.category = Category(name, name, "synthetic")
        if self.method.shots:
            self.method.remember(from_tensor(self._random(self.method.shots), self.category))

    def _random(self, count: int) -> Tensor:
        size = self.method.preprocess.size
        generator = torch.Generator().manual_seed(0)
        return torch.randn(count, 3, size, size, generator=generator).to(self.device)


def encoder_flops(encoder: Encoder) -> float:
    """Return the floating-point operations of the bare encoder pass of one image."""
    images = torch.zeros(1, 3, encoder.size, encoder.size, device=encoder.device)
    return float(count_flops(lambda: encoder.encode(images, encoder.whole_pass)))


def watch_prompts(text: TextEncoder | None) -> list[int]:
    """Return a list that from now on grows by the number of prompts of each pass through a text tower."""
    counts: list[int] = []
    if text is not None:
        original = text.end_tokens

        def end_tokens(embeddings: Tensor, *arguments: Any, **named: Any) -> Tensor:
            counts.append(len(embeddings))
            return original(embeddings, *arguments, **named)

        text.end_tokens = end_tokens  # type: ignore[method-assign]  # this encoder belongs to the measurement
    return counts


def is_out_of_memory(error: Exception) -> bool:
    """Tell whether an error means that memory ran out; a GPU's is then given back."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in OUT_OF_MEMORY)
