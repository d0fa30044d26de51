"""One cell on its way: images to predictions, parked on disk, and those to a record."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zsadbench.data.images import Preprocess, apply
from zsadbench.data.reading import Reader
from zsadbench.datasets import Sample
from zsadbench.encoders.kept import KeptPasses
from zsadbench.errors import ContractError, ZsadError
from zsadbench.methods import Final, Method
from zsadbench.records import pixel_files, results, saved_maps
from zsadbench.records.record import ImageScore
from zsadbench.records.results import Record
from zsadbench.running import contract, recording
from zsadbench.running.evaluation import GroundTruth, evaluate, finished_maps
from zsadbench.running.loading import ChunkStore, batch_of, scored_batches
from zsadbench.running.plan import standing
from zsadbench.running.planned import Cell
from zsadbench.running.progress import Recorded
from zsadbench.running.request import Request
from zsadbench.support import files
from zsadbench.support.guard import guard
from zsadbench.support.meters import clock
from zsadbench.support.spill import Parked, Spill

Call = Callable[[Cell, Callable[[], Any], int], Any]  # does an action of a cell's method, the one of a number


class CellRun:
    """One cell on its way through the images of its category."""

    def __init__(self, cell: Cell, method: Method, store: ChunkStore, spill: Spill) -> None:
        self.cell, self.method, self.spill, self._store = cell, method, spill, store
        self.final: Final | None = None  # image scores, once all images are predicted
        self._scores: list[Tensor] = []  # as they were predicted
        self._maps: list[tuple[int, Parked]] = []
        self.seconds = 0.0
        self.problem: ZsadError | None = None
        self._steps = list(scored_batches(store, cell.category, method))

    def remember(self, reader: Reader, request: Request, pool: Executor, call: Call, kept: KeptPasses | None) -> None:
        """Hand a few-shot method its reference images."""
        action = partial(remember, self.cell, self.method, reader, request, pool, kept)
        self.problem = guard(partial(call, self.cell, action, -1), request.fail_fast)

    def advance(self, stop: int, request: Request, call: Call) -> None:
        """Predict every batch that ends at or before image `stop`."""
        while self._steps and self._steps[0][1] <= stop and self.problem is None:
            start, end, batch = self._steps.pop(0)
            began = clock(request.device)
            action = partial(contract.predict, self.method, batch)
            outcome = guard(partial(call, self.cell, action, start), request.fail_fast)
            if isinstance(outcome, ZsadError):
                self.problem = outcome
            else:
                self._scores.append(outcome.scores[: end - start])
                self._maps.append((start, self.spill.write(outcome.maps[: end - start])))
                if not self._steps:
                    self._finalise(request, call)
            self.seconds += clock(request.device) - began

    def _finalise(self, request: Request, call: Call) -> None:
        """Make the image scores of the category."""
        self.final = Final(torch.cat(self._scores))
        if contract.waits(self.method):
            paths = [sample.path for sample in self.cell.samples]
            action = partial(contract.finalise, self.method, self.final.scores, paths)
            outcome = guard(partial(call, self.cell, action, len(paths)), request.fail_fast)
            if isinstance(outcome, ZsadError):
                self.problem = outcome
            else:
                self.final = outcome

    def finished(self) -> Final:
        """Return the image scores of a cell without a problem, and how its maps are scaled."""
        assert self.final is not None
        return self.final

    @property
    def parked(self) -> tuple[int, int]:
        """Bytes on disk: of the predicted maps, and of the features of all chunks."""
        return sum(parked.size for _, parked in self._maps), self._store.parked

    def maps_in_order(self) -> Iterator[tuple[int, Tensor]]:
        """Yield (first image, maps on the method's own grid), read back from disk."""
        for start, parked in self._maps:
            yield start, self.finished().scaled(self.spill.read(parked))


def make_store(
    samples: Sequence[Sample],
    reader: Reader,
    preprocess: Preprocess,
    request: Request,
    pool: Executor,
    spill: Spill | None,
    kept: KeptPasses | None,
) -> ChunkStore:
    """Return the images of some samples, decoded and preprocessed when they are first used."""
    own = asdict(preprocess)
    by_path = {sample.path: sample for sample in samples}

    def read(path: Path) -> Tensor:
        sample = by_path[path]
        return apply(preprocess, reader.image(sample))

    def identify(path: Path) -> Any:
        pixels = reader.identity(by_path[path])
        return None if pixels is None else [pixels, own]

    return ChunkStore(
        tuple(by_path), request.protocol.batch_size, read, request.device,
        pool=pool, spill=spill, sealed=True, kept=kept, identify=identify,
    )  # fmt: skip


def remember(
    cell: Cell, method: Method, reader: Reader, request: Request, pool: Executor, kept: KeptPasses | None
) -> None:
    """Hand a few-shot method its normal reference images. Raises ContractError if it wants others than planned."""
    if method.shots != len(cell.references):
        raise ContractError(
            f"method {method.name}: shots is {method.shots}, but its options say {len(cell.references)}; expected an "
            "option named shots, or shots as a class attribute: a run draws references before it makes the method."
        )
    if cell.references:
        store = make_store(cell.references, reader, method.preprocess, request, pool, None, kept)
        method.remember(batch_of(store, cell.category, 0, len(cell.references)))


@torch.inference_mode()  # the mode belongs to a thread, and this runs in one of its own
def conclude(cell_run: CellRun, truth: GroundTruth, request: Request) -> Recorded:
    """Evaluate a cell whose images are all predicted, and save its record."""
    cell, predicting = cell_run.cell, cell_run.seconds
    if cell_run.problem is not None:
        return save_failure(cell, cell_run.problem, request, predicting)
    began = time.perf_counter()
    outcome = guard(partial(_measure, cell_run, truth, request), request.fail_fast)
    evaluating = time.perf_counter() - began
    if isinstance(outcome, ZsadError):
        return save_failure(cell, outcome, request, predicting, evaluating)
    measured, beside = outcome
    record = _commit(cell, measured, beside, request)
    if isinstance(record, ZsadError):
        return save_failure(cell, record, request, predicting, evaluating)
    recording.log(cell, record, request, (predicting, evaluating), cell_run.parked)
    return Recorded(record, predicting + evaluating, request.protocol.seed)


def _commit(cell: Cell, record: Record, beside: dict[str, bytes], request: Request) -> Record | ZsadError:
    """Write a cell, unless another process has finished it meanwhile; return the record that stands then."""
    with files.locked(cell.path(request.out).parent):
        found = standing(cell, request)
        if found.record is not None and found.stands:
            if not found.maps and record.fingerprint == found.record.fingerprint:
                files.write_atomically(results.path_of(request.out, record, results.MAPS), beside[results.MAPS])
            return found.record
        if results.SCORES not in beside or (found.asked and not request.overwrite):
            return ZsadError("Another process changed this cell while it was measured; its files were left alone.")
        return results.save(request.out, record, beside)


def _measure(cell_run: CellRun, truth: GroundTruth, request: Request) -> tuple[Record, dict[str, bytes]]:
    """Return the record of a cell and the files beside it; of a finished one that lacks its maps those alone."""
    cell, method, protocol = cell_run.cell, cell_run.method, request.protocol
    beside: dict[str, bytes] = {}
    found = standing(cell, request)
    if found.record is not None and found.stands:
        record = found.record
    else:
        values = cell_run.finished().scores.cpu().numpy().astype(np.float64)
        outcome = evaluate(truth, method, values, cell_run.maps_in_order, protocol)
        record = recording.done(cell, method, outcome, request)
        scores = [
            ImageScore(name, sample.label, sample.defect, float(score))
            for name, sample, score in zip(truth.names, cell.samples, values, strict=True)
        ]
        beside[results.SCORES] = results.encode_scores(scores)
        if outcome.histograms is not None:
            beside[results.PIXELS] = pixel_files.encode(outcome.histograms)
    if request.save_maps:
        maps = finished_maps(truth, method, cell_run.maps_in_order(), protocol)
        beside[results.MAPS] = saved_maps.encode(record, truth.names, maps)
    return record, beside


def save_failure(
    cell: Cell, problem: ZsadError, request: Request, predicting: float = 0.0, evaluating: float = 0.0
) -> Recorded:
    """Record why a cell has no new numbers, after so many seconds."""
    record = recording.failure(cell, problem)
    with files.locked(cell.path(request.out).parent):
        results.save_failure(request.out, record)
    recording.log(cell, record, request, (predicting, evaluating))
    return Recorded(record, predicting + evaluating, request.protocol.seed)
