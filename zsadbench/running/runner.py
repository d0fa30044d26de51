"""The only loop over images: runs the cells of a plan, shares passes, and writes one record a cell."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import torch

from zsadbench import encoders, methods
from zsadbench.data.images import DECODERS, Preprocess
from zsadbench.encoders import weights as weight_files
from zsadbench.encoders.base import Encoder
from zsadbench.errors import ZsadError
from zsadbench.methods import Method, TrainableMethod
from zsadbench.records import places, results
from zsadbench.records.results import Record
from zsadbench.running import recording
from zsadbench.running.cells import CellRun, conclude, make_store, remember, save_failure
from zsadbench.running.evaluation import GroundTruth
from zsadbench.running.plan import Cell, Plan, PlannedMethod, Tower
from zsadbench.running.progress import Progress
from zsadbench.running.request import Request
from zsadbench.support import files
from zsadbench.support.guard import guard
from zsadbench.support.meters import CORES
from zsadbench.support.spill import Spill

EVALUATORS = max(1, min(4, CORES // 4))  # threads that measure predicted cells; each holds a cell's pixel counts


@dataclass
class Summary:
    """How a run ended: how many cells of each status, and how many were already done."""

    skipped: int
    counts: dict[str, int] = field(default_factory=dict)
    done: list[Record] = field(default_factory=list)

    def add(self, record: Record) -> None:
        """Count a record that was just written."""
        self.counts[record.status] = self.counts.get(record.status, 0) + 1
        if record.status == "done":
            self.done.append(record)

    @property
    def failed(self) -> int:
        """How many cells failed or were refused."""
        return self.counts.get("failed", 0) + self.counts.get("refused", 0)


def tidy(plan: Plan, request: Request) -> None:
    """Make the run folder, or remove from it what killed runs have left and failures that finished cells outlived.

    Where the data sets lie is noted in it.
    """
    files.make_folder(request.out)
    sweep(request.out)
    for dataset in plan.datasets:
        places.write(request.out, dataset)
    for path in plan.done:
        results.forget_failure(path)


def sweep(out: Path) -> None:
    """Remove files of a run folder that were never finished, because their process died."""
    files.sweep(out, "*/", "*/*/", f"*/*/{results.FAILED}/")


def load_tower(tower: Tower, request: Request) -> Encoder | None:
    """Return the encoder that methods share in a run, None for methods without. Raises WeightsError."""
    precision = request.protocol.precision
    return encoders.load_for(tower, device=request.device, precision=precision, weights=request.weights)


def run(plan: Plan, request: Request, progress: Progress) -> Summary:
    """Tidy the run folder, then run every cell of the plan and record it there.

    A cell that fails is recorded as failed and the run goes on (unless `fail_fast`). Raises RecordError when results
    cannot be written; what was finished before stays.
    """
    tidy(plan, request)
    return run_cells(plan, request, progress, load_tower)


def run_cells(
    plan: Plan, request: Request, progress: Progress, load: Callable[[Tower, Request], Encoder | None]
) -> Summary:
    """Run every cell of the plan; `load` is for a process that keeps encoders between runs. Raises as `run`."""
    summary = Summary(skipped=len(plan.done))
    progress.begin(plan.cells, sum(len(cell.samples) for group in plan.groups for cell in group))
    with ThreadPoolExecutor(DECODERS) as pool, ThreadPoolExecutor(EVALUATORS) as evaluators, torch.inference_mode():
        work = _Work(request, progress, pool, evaluators)
        parts = (
            part
            for group in plan.groups
            for part in _run_group(group, cache(partial(load, group[0].planned.tower, request)), work)
        )
        for record in _one_behind(parts):
            summary.add(record)
            progress.finish_cell(record)
    return summary


class _Work(NamedTuple):
    """What every step of a run needs."""

    request: Request
    progress: Progress
    pool: Executor  # decodes images and masks
    evaluators: Executor  # measure the cells of one category while the next is predicted


class _Part(NamedTuple):
    """Cells whose images are all predicted, and what to close once they are measured."""

    records: list[Future[Record]]
    resources: ExitStack


def _one_behind(parts: Iterator[_Part]) -> Iterator[Record]:
    """Yield the records of each part while the next one is predicted, so that only two hold anything."""
    before: _Part | None = None
    for part in parts:
        if before is not None:
            yield from _records(before)
        before = part
    if before is not None:
        yield from _records(before)


def _records(part: _Part) -> Iterator[Record]:
    with part.resources:
        for future in part.records:
            yield future.result()


def _run_group(group: Sequence[Cell], load_encoder: Callable[[], Encoder | None], work: _Work) -> Iterator[_Part]:
    """Make the methods of a group, which agrees on an encoder, then predict its cells category by category."""
    ready: dict[str, Method | ZsadError] = {}
    for planned in {cell.planned.name: cell.planned for cell in group}.values():
        ready[planned.name] = guard(partial(_prepare, planned, load_encoder), work.request.fail_fast)
    for cells in by_category(group):
        yield _run_category(cells, ready, work)


def by_category(group: Sequence[Cell]) -> list[list[Cell]]:
    """Return the cells of a group in parts that see the same images: the least that can run on its own."""
    return [list(cells) for _, cells in groupby(group, key=lambda cell: (cell.dataset.name, cell.category.name))]


def _prepare(planned: PlannedMethod, load_encoder: Callable[[], Encoder | None]) -> Method:
    if planned.problem is not None:
        raise planned.problem
    method = methods.build(planned.method, planned.name, planned.config, load_encoder())
    if isinstance(method, TrainableMethod) and planned.checkpoint:
        origin = " and ".join(map(str, planned.checkpoint))
        method.load_checkpoint(weight_files.read_checkpoint(*planned.checkpoint), origin)
        method.trained_on = planned.trained_on or method.trained_on
    return method


def _run_category(cells: Sequence[Cell], ready: dict[str, Method | ZsadError], work: _Work) -> _Part:
    """Predict the cells of one category; those that cannot run are recorded as such."""
    part = _Part([], ExitStack())
    sharing: dict[Preprocess, list[tuple[Cell, Method]]] = {}
    for cell in cells:
        method = ready[cell.planned.name]
        problem = method if isinstance(method, ZsadError) else cell.problem or _leak(cell, method, work.request)
        if problem is not None:
            part.records.append(_failed(cell, problem, work))
        elif isinstance(method, Method):
            sharing.setdefault(method.preprocess, []).append((cell, method))
    for members in sharing.values():
        spill = part.resources.enter_context(closing(Spill(work.request.out)))
        part.records.extend(_run_shared(members, work, spill))
    return part


def _failed(cell: Cell, problem: ZsadError, work: _Work) -> Future[Record]:
    return work.evaluators.submit(save_failure, cell, problem, work.request)


def _run_shared(members: list[tuple[Cell, Method]], work: _Work, spill: Spill) -> list[Future[Record]]:
    """Run methods that see the same images: one decode and one encoder pass an image for all of them."""
    request, first = work.request, members[0][0]
    truth = GroundTruth(first.dataset, first.samples, request.protocol, work.pool)
    looks_back = any(method.scope != "image" for _, method in members)
    preprocess, parked = members[0][1].preprocess, spill if looks_back else None
    store = make_store(first.samples, truth.reader, preprocess, request, work.pool, parked)
    runs, records = [], []
    for cell, method in members:
        problem = guard(partial(remember, cell, method, truth.reader, request, work.pool), request.fail_fast)
        if isinstance(problem, ZsadError):
            records.append(_failed(cell, problem, work))
            continue
        runs.append(CellRun(cell, method, store, spill))
        if method.encoder is not None:
            key = method.encoder.key
            store.expected[key] = method.request | store.expected.get(key, method.request)
    waiting = {run.method.encoder for run in runs if run.method.scope == "category" and run.method.request.keys()}
    for chunk in range(len(store)):
        store.prefetch(chunk)
        store.prefetch(chunk + 1)
        for encoder in waiting:  # once the category is complete, its decoded images would be gone
            guard(partial(store.features, chunk, encoder, store.expected[encoder.key]), request.fail_fast)
        stop = min((chunk + 1) * store.size, len(first.samples))
        for cell_run in runs:
            cell_run.advance(stop, request)
        work.progress.step(f"{first.dataset.name}/{first.category.name}", (stop - chunk * store.size) * len(runs))
    return records + [work.evaluators.submit(conclude, cell_run, truth, request) for cell_run in runs]


def _leak(cell: Cell, method: Method, request: Request) -> ZsadError | None:
    """Zero-shot is computed: refuse a checkpoint that has seen the target, unless the user insists."""
    if request.allow_leak or not recording.has_seen(method, cell):
        return None
    what = f"{cell.seen} of these images" if cell.seen else cell.dataset.name
    return recording.Refused(
        f"{cell.planned.name} was trained on {what}, so this would not be zero-shot. "
        "Choose a checkpoint of another dataset, or pass --allow-leak to run it marked as leaked."
    )
