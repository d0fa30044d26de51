"""The only loop over images: runs the cells of a plan, shares passes, and writes one record a cell."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import torch

from zsadbench.data.images import DECODERS, Preprocess
from zsadbench.data.pictures import Pictures
from zsadbench.data.reading import Reader
from zsadbench.errors import ZsadError
from zsadbench.methods import Method
from zsadbench.records import places, results
from zsadbench.records.results import Record
from zsadbench.running import recording
from zsadbench.running.cells import CellRun, conclude, make_store, save_failure
from zsadbench.running.evaluation import GroundTruth
from zsadbench.running.isolation import Disturbed, Load, Roster, load_chosen
from zsadbench.running.planned import Cell, Plan
from zsadbench.running.progress import Progress, Recorded
from zsadbench.running.request import Request
from zsadbench.support import files
from zsadbench.support.calls import Harm
from zsadbench.support.guard import guard
from zsadbench.support.meters import CORES, few_threads
from zsadbench.support.spill import Spill
from zsadbench.support.store import Store

ANSWERS = ("done", "needs_checkpoint", "not_possible")  # statuses of cells that are as they should be
EVALUATORS = max(1, min(4, CORES // 4))  # threads that measure predicted cells; each holds a cell's pixel counts


@dataclass
class Summary:
    """How a run ended: how many cells of each status, and how many were already done."""

    planned: int  # cells
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
        """How many cells failed, were refused or have no record at all."""
        return self.planned - sum(self.counts.get(status, 0) for status in ANSWERS)


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


def run(plan: Plan, request: Request, progress: Progress) -> Summary:
    """Tidy the run folder, then run every cell of the plan and record it there.

    A cell that fails is recorded as failed and the run goes on (unless `fail_fast`). Raises RecordError when results
    cannot be written; what was finished before stays.
    """
    tidy(plan, request)
    return run_cells(plan, request, progress, load_chosen)


def run_cells(plan: Plan, request: Request, progress: Progress, load: Load) -> Summary:
    """Run every cell of the plan; `load` is for a process that keeps encoders between runs. Raises as `run`."""
    summary = Summary(plan.cells, skipped=len(plan.done))
    progress.begin(plan.cells, plan.images)
    with ThreadPoolExecutor(DECODERS) as pool, ThreadPoolExecutor(EVALUATORS) as evaluators, torch.inference_mode():
        work = _Work(request, progress, pool, evaluators, request.store())
        parts = (part for group in plan.groups for part in _run_group(group, load, work))
        for recorded in _one_behind(parts, work):
            summary.add(recorded.record)
            progress.finish_cell(recorded)
    return summary


@dataclass
class _Work:
    """What every step of a run needs."""

    request: Request
    progress: Progress
    pool: Executor  # decodes images and masks
    evaluators: Executor  # measure the cells of one category while the next is predicted
    store: Store | None  # of images and passes of earlier runs
    disturbances: int = 0  # how often a method changed what others use, settings of the process perhaps

    def record(self, action: Callable[[], Recorded]) -> _Recording:
        """Start to measure and record a cell."""
        return _Recording(action, self.evaluators.submit(action), self.disturbances)

    def fail(self, cell: Cell, problem: ZsadError) -> _Recording:
        """Start to record why a cell is not predicted."""
        self.progress.skip(len(cell.samples))
        return self.record(partial(save_failure, cell, problem, self.request))

    def recorded(self, one: _Recording) -> Recorded:
        """Return the record; one that was made while a method changed something is made again."""
        recorded = one.future.result()
        return recorded if one.disturbances == self.disturbances else one.action()


class _Recording(NamedTuple):
    """A record that is being made."""

    action: Callable[[], Recorded]
    future: Future[Recorded]
    disturbances: int  # when it was begun


class _Part(NamedTuple):
    """Cells whose images are all predicted, and what to close once they are measured."""

    recordings: list[_Recording]
    resources: ExitStack


def _one_behind(parts: Iterator[_Part], work: _Work) -> Iterator[Recorded]:
    """Yield the records of each part while the next one is predicted, so that only two hold anything."""
    before: _Part | None = None
    for part in parts:
        if before is not None:
            yield from _records(before, work)
        before = part
    if before is not None:
        yield from _records(before, work)


def _records(part: _Part, work: _Work) -> Iterator[Recorded]:
    with part.resources:
        yield from map(work.recorded, part.recordings)


def _run_group(group: Sequence[Cell], load: Load, work: _Work) -> Iterator[_Part]:
    """Make the methods of a group, which agrees on an encoder, then predict its cells category by category."""
    roster = Roster(group, load, work.request)
    with few_threads(work.request.device, roster.parameters):
        for cells in by_category(group):
            yield _run_category(cells, roster, work)


def by_category(group: Sequence[Cell]) -> list[list[Cell]]:
    """Return the cells of a group in parts that see the same images: the least that can run on its own."""
    return [list(cells) for _, cells in groupby(group, key=lambda cell: (cell.dataset.name, cell.category.name))]


def _run_category(cells: Sequence[Cell], roster: Roster, work: _Work) -> _Part:
    """Predict the cells of one category; those that cannot run are recorded as such."""
    part = _Part([], ExitStack())
    sharing: dict[Preprocess, list[Cell]] = {}
    for cell, method in _able(cells, roster, work, part.recordings):
        sharing.setdefault(method.preprocess, []).append(cell)
    for members in sharing.values():
        _run_shared(members, roster, work, part)
    return part


def _able(
    cells: Sequence[Cell], roster: Roster, work: _Work, recordings: list[_Recording]
) -> list[tuple[Cell, Method]]:
    """Return cells with their methods; those that cannot run are recorded as such."""
    able = []
    for cell in cells:
        method = roster.ready[cell.planned.name]
        problem = method if isinstance(method, ZsadError) else cell.problem or _leak(cell, method, work.request)
        if problem is not None:
            recordings.append(work.fail(cell, problem))
        elif isinstance(method, Method):
            able.append((cell, method))
    return able


def _run_shared(cells: Sequence[Cell], roster: Roster, work: _Work, part: _Part) -> None:
    """Run methods that see the same images; again without those that change what the others see."""
    request, closely = work.request, False  # closely: look after each call
    while members := _able(cells, roster, work, part.recordings):
        spill = part.resources.enter_context(closing(Spill(request.out)))
        try:
            pictures = Pictures(cells[0].digests, work.store) if work.store is not None else None
            truth = GroundTruth(cells[0].dataset, cells[0].samples, request.protocol, work.pool, pictures)
            runs = _predict(members, truth.reader, roster, work, spill, closely)
        except Disturbed as end:
            spill.close()
            work.disturbances += 1
            guilty = [end.cell] if end.cell is not None else list(cells) if closely else []
            part.recordings.extend(work.fail(cell, end.problem) for cell in guilty)
            cells = [cell for cell, _ in members if not any(cell is one for one in guilty)]
            closely = not guilty
            roster.renew()
        else:
            part.recordings.extend(work.record(partial(conclude, one, truth, request)) for one in runs)
            return


def _predict(
    members: Sequence[tuple[Cell, Method]], reader: Reader, roster: Roster, work: _Work, spill: Spill, closely: bool
) -> list[CellRun]:
    """Predict cells of one category: one decode and one encoder pass an image for all. Raises Disturbed."""
    request, (first, method) = work.request, members[0]
    looks_back = any(method.scope != "image" for _, method in members)
    label = f"{first.dataset.name}/{first.category.name}"
    parked = spill if looks_back else None
    kept = roster.kept(work.store)
    store = make_store(first.samples, reader, method.preprocess, request, work.pool, parked, kept)
    shared = roster.shared(store)
    call = partial(roster.call, shared=shared if closely else None)
    runs = [CellRun(cell, method, store, spill) for cell, method in members]
    for one in runs:
        one.remember(reader, request, work.pool, call, kept)
        if one.method.encoder is not None and one.problem is None:
            key = one.method.encoder.key
            store.expected[key] = one.method.request | store.expected.get(key, one.method.request)
    waiting = {one.method.encoder for one in runs if one.method.scope == "category" and one.method.request.keys()}
    told = 0
    for chunk in range(len(store)):
        store.prefetch(chunk)
        store.prefetch(chunk + 1)
        for encoder in waiting:  # once the category is complete, its decoded images would be gone
            guard(partial(store.features, chunk, encoder, store.expected[encoder.key]), request.fail_fast)
        stop = min((chunk + 1) * store.size, len(first.samples))
        for one in runs:
            one.advance(stop, request, call)
        harmful = next((one for one in runs if isinstance(one.problem, Harm)), None)
        if harmful or (shared.changed() if chunk == len(store) - 1 else shared.changed_so_far()):
            store.close()
            work.progress.step(label, -told)
            raise Disturbed(*((harmful.cell, harmful.problem) if harmful else ()))
        work.progress.step(label, (stop - chunk * store.size) * len(runs))
        told += (stop - chunk * store.size) * len(runs)
    return runs


def _leak(cell: Cell, method: Method, request: Request) -> ZsadError | None:
    """Zero-shot is computed: refuse a checkpoint that has seen the target, unless the user insists."""
    if request.allow_leak or not recording.has_seen(method, cell):
        return None
    what = f"{cell.seen} of these images" if cell.seen else cell.dataset.name
    return recording.Refused(
        f"{cell.planned.name} was trained on {what}, so this would not be zero-shot. "
        "Choose a checkpoint of another dataset, or pass --allow-leak to run it marked as leaked."
    )
