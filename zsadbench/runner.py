"""The only loop over images: runs the cells of a plan, shares passes, and writes one record a cell."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from zsadbench import encoders, methods, pixel_files, recording, results, sampling, saved_maps
from zsadbench.datasets import Sample
from zsadbench.encoders import weights as weight_files
from zsadbench.encoders.base import Encoder
from zsadbench.errors import NeedsCheckpoint, RecordError, ZsadError
from zsadbench.evaluation import GroundTruth, evaluate, finished_maps
from zsadbench.loading import ChunkStore, ImageBatch, positions
from zsadbench.methods import Method, Prediction, TrainableMethod, check_prediction
from zsadbench.plan import Cell, Plan, PlannedMethod, Request, Tower
from zsadbench.preprocess import Preprocess, apply, decode_image
from zsadbench.results import ImageScore, Record
from zsadbench.spill import Parked, Spill

DECODERS = min(8, os.cpu_count() or 1)  # decoding threads; PIL releases the interpreter lock while it decodes


class Progress(Protocol):
    """What the runner tells while it works; the command line draws bars from it."""

    def begin(self, cells: int, images: int) -> None:
        """Announce how many cells and image predictions the run has."""

    def step(self, label: str, images: int) -> None:
        """Report that `images` more predictions are done, and on what."""

    def finish_cell(self, record: Record) -> None:
        """Report that a cell has been recorded."""


@dataclass
class Summary:
    """How a run ended: how many cells of each status, and how many were already done."""

    skipped: int
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def failed(self) -> int:
        """How many cells failed or were refused."""
        return self.counts.get("failed", 0) + self.counts.get("refused", 0)


def load_tower(tower: Tower, request: Request) -> Encoder | None:
    """Return the encoder that methods share in a run, None for methods without. Raises WeightsError."""
    precision = request.protocol.precision
    return encoders.load_for(tower, device=request.device, precision=precision, weights=request.weights)


def run(
    plan: Plan,
    request: Request,
    progress: Progress,
    load: Callable[[Tower, Request], Encoder | None] = load_tower,
) -> Summary:
    """Run every cell of the plan and record it under `request.out`.

    A cell that fails is recorded as failed and the run goes on (unless `fail_fast`). Raises RecordError when results
    cannot be written; what was finished before stays. `load` is for a process that keeps encoders between runs.
    """
    make_folder(request.out)
    summary = Summary(skipped=len(plan.done))
    progress.begin(plan.cells, sum(len(cell.samples) for group in plan.groups for cell in group))
    with ThreadPoolExecutor(DECODERS) as pool, torch.inference_mode():
        for group in plan.groups:
            encoder = cache(partial(load, group[0].planned.tower, request))  # the group agrees on it
            for record in _run_group(group, encoder, request, progress, pool):
                summary.counts[record.status] = summary.counts.get(record.status, 0) + 1
                progress.finish_cell(record)
    return summary


def make_folder(folder: Path) -> None:
    """Create the run folder. Raises RecordError when that is impossible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecordError(
            f"--out {folder} cannot be created: {error.strerror or error}. Choose another folder."
        ) from error


def _run_group(
    group: Sequence[Cell],
    load_encoder: Callable[[], Encoder | None],
    request: Request,
    progress: Progress,
    pool: Executor,
) -> Iterator[Record]:
    """Make the group's methods, then run its cells category by category."""
    ready: dict[str, Method | ZsadError] = {}
    for planned in {cell.planned.name: cell.planned for cell in group}.values():
        ready[planned.name] = guard(partial(_prepare, planned, load_encoder), request)
    for cells in by_category(group):
        yield from _run_category(cells, ready, request, progress, pool)


def by_category(group: Sequence[Cell]) -> list[list[Cell]]:
    """Return the cells of a group in parts that see the same images: the least that can run on its own."""
    return [list(cells) for _, cells in groupby(group, key=lambda cell: (cell.dataset.name, cell.category.name))]


def _prepare(planned: PlannedMethod, load_encoder: Callable[[], Encoder | None]) -> Method:
    if planned.problem is not None:
        raise planned.problem
    method = methods.build(planned.method, planned.name, planned.config, load_encoder())
    if isinstance(method, TrainableMethod) and planned.checkpoint is not None:
        method.load_checkpoint(weight_files.read_checkpoint(planned.checkpoint), str(planned.checkpoint))
        method.trained_on = planned.trained_on or method.trained_on
    return method


class _CellRun:
    """One cell on its way through the images of its category."""

    def __init__(
        self, cell: Cell, method: Method, references: tuple[Sample, ...], store: ChunkStore, spill: Spill
    ) -> None:
        self.cell, self.method, self.references, self.spill = cell, method, references, spill
        self.scores = np.full(len(cell.samples), np.nan)
        self.maps: list[tuple[int, Parked]] = []
        self.seconds = 0.0
        self.problem: ZsadError | None = None
        self._steps = list(_steps(store, cell, method))

    def advance(self, stop: int, request: Request) -> None:
        """Predict every batch that ends at or before image `stop`."""
        while self._steps and self._steps[0][1] <= stop and self.problem is None:
            start, end, batch = self._steps.pop(0)
            began = _clock(request.device)
            outcome = guard(partial(_checked, self.method, batch), request)
            self.seconds += _clock(request.device) - began
            if isinstance(outcome, ZsadError):
                self.problem = outcome
            else:
                self.scores[start:end] = outcome.scores[: end - start].cpu().numpy()
                self.maps.append((start, self.spill.write(outcome.maps[: end - start])))

    def maps_in_order(self) -> Iterator[tuple[int, Tensor]]:
        """Yield (first image, predicted maps) as they were predicted, read back from disk."""
        for start, parked in self.maps:
            yield start, self.spill.read(parked)


def _steps(store: ChunkStore, cell: Cell, method: Method) -> Iterator[tuple[int, int, ImageBatch]]:
    """Yield (start, stop, batch): which batch scores images start..stop, by the method's scope."""
    count = len(cell.samples)
    if method.scope == "category":
        yield 0, count, positions(store, cell.category, 0, count)
        return
    size = store.size if method.scope == "image" else method.batch_images or store.size
    for start in range(0, count, size):
        stop = min(start + size, count)
        # A short last batch of mutual references is filled up from the start of the order; extras are not scored.
        filled = start + size if method.scope == "batch" else stop
        yield start, stop, positions(store, cell.category, start, filled)


def _run_category(
    cells: list[Cell], ready: dict[str, Method | ZsadError], request: Request, progress: Progress, pool: Executor
) -> Iterator[Record]:
    sharing: dict[Preprocess, list[tuple[Cell, Method]]] = {}
    for cell in cells:
        method = ready[cell.planned.name]
        if isinstance(method, ZsadError):
            yield _save_failure(cell, method, request)
        elif (leak := _leak(cell, method, request)) is not None:
            yield _save_failure(cell, leak, request)
        else:
            sharing.setdefault(method.preprocess, []).append((cell, method))
    for members in sharing.values():
        with closing(Spill(request.out)) as spill:
            yield from _run_shared(members, request, progress, pool, spill)


def _run_shared(
    members: list[tuple[Cell, Method]], request: Request, progress: Progress, pool: Executor, spill: Spill
) -> Iterator[Record]:
    """Run methods that see the same images: one decode and one encoder pass an image for all of them."""
    first, protocol = members[0][0], request.protocol
    truth = GroundTruth(first.dataset, first.samples, protocol, pool)
    looks_back = any(method.scope != "image" for _, method in members)
    store = _store(first.samples, members[0][1].preprocess, request, pool, spill if looks_back else None)
    runs = []
    for cell, method in members:
        references = guard(partial(_remember, cell, method, request, pool), request)
        if isinstance(references, ZsadError):
            yield _save_failure(cell, references, request)
            continue
        runs.append(_CellRun(cell, method, references, store, spill))
        if method.encoder is not None:
            key = method.encoder.key
            store.expected[key] = method.request | store.expected.get(key, method.request)
    waiting = {run.method.encoder for run in runs if run.method.scope == "category" and run.method.request.keys()}
    for chunk in range(len(store)):
        store.prefetch(chunk)
        store.prefetch(chunk + 1)
        for encoder in waiting:  # once the category is complete, its decoded images would be gone
            guard(partial(store.features, chunk, encoder, store.expected[encoder.key]), request)
        stop = min((chunk + 1) * store.size, len(first.samples))
        for cell_run in runs:
            cell_run.advance(stop, request)
        progress.step(f"{first.dataset.name}/{first.category.name}", (stop - chunk * store.size) * len(runs))
    for cell_run in runs:
        yield _conclude(cell_run, truth, request)


def _store(
    samples: Sequence[Sample], preprocess: Preprocess, request: Request, pool: Executor, spill: Spill | None
) -> ChunkStore:
    by_path = {sample.path: sample for sample in samples}

    def read(path: Path) -> Tensor:
        sample = by_path[path]
        return apply(preprocess, sample.cut(decode_image(sample.image)))

    return ChunkStore(tuple(by_path), request.protocol.batch_size, read, request.device, pool=pool, spill=spill)


def _leak(cell: Cell, method: Method, request: Request) -> ZsadError | None:
    """Zero-shot is computed: refuse a checkpoint that has seen the target, unless the user insists."""
    if request.allow_leak or not recording.has_seen(method, cell):
        return None
    return recording.Refused(
        f"{cell.planned.name} was trained on {cell.dataset.name}, so this would not be zero-shot. "
        "Choose a checkpoint of another dataset, or pass --allow-leak to run it marked as leaked."
    )


def _remember(cell: Cell, method: Method, request: Request, pool: Executor) -> tuple[Sample, ...]:
    """Hand a few-shot method its normal reference images, and return which they are."""
    if not method.shots:
        return ()
    samples = sampling.references(cell.dataset, cell.category.name, method.shots, request.protocol.seed)
    store = _store(samples, method.preprocess, request, pool, None)
    method.remember(positions(store, cell.category, 0, len(samples)))
    return samples


def _checked(method: Method, batch: ImageBatch) -> Prediction:
    """Predict one batch and hold the method to its contract. Raises ContractError naming the field."""
    prediction = method.predict(batch)
    check_prediction(prediction, batch, method.name)
    return prediction


def _conclude(cell_run: _CellRun, truth: GroundTruth, request: Request) -> Record:
    """Evaluate a cell whose images are all predicted, and save its record."""
    cell = cell_run.cell
    if cell_run.problem is not None:
        return _save_failure(cell, cell_run.problem, request)
    maps = cell_run.maps_in_order
    outcome = guard(partial(evaluate, truth, cell_run.method, cell_run.scores, maps, request.protocol), request)
    if isinstance(outcome, ZsadError):
        return _save_failure(cell, outcome, request)
    record = recording.done(cell, cell_run.method, outcome, cell_run.references, request)
    if request.save_maps:
        saved_maps.save(
            request.out, record, truth.names, finished_maps(truth, cell_run.method, maps(), request.protocol)
        )
    if outcome.histograms is not None:
        pixel_files.save(request.out, record, outcome.histograms)
    scores = [
        ImageScore(name, sample.label, sample.defect, float(score))
        for name, sample, score in zip(truth.names, cell.samples, cell_run.scores, strict=True)
    ]
    results.save(request.out, record, scores)
    recording.log(cell, cell_run.seconds, request)
    return record


def _save_failure(cell: Cell, problem: ZsadError, request: Request) -> Record:
    record = recording.failure(cell, problem)
    results.save(request.out, record)
    return record


class _Crash(ZsadError):
    """A bug in a method or in zsadbench: recorded with its traceback, while the other cells go on."""


def guard(action: Callable[[], Any], request: Request) -> Any:
    """Return what the action returns, or the ZsadError that says why it failed.

    Results that cannot be written still raise: going on would lose more of them.
    """
    try:
        return action()
    except RecordError:
        raise
    except NeedsCheckpoint as error:
        return error  # an answer, not a failure: --fail-fast does not stop for it
    except ZsadError as error:
        if request.fail_fast:
            raise
        return error
    except Exception as error:
        if request.fail_fast:
            raise
        return _Crash("".join(traceback.format_exception(error)))


def _clock(device: str) -> float:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    return time.perf_counter()
