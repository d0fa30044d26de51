"""What a training gives: losses on its own data, and quality on a target before and after, for tests and benchmarks."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, replace
from typing import NamedTuple

from safetensors.torch import save_file

from zsadbench import methods
from zsadbench.protocol import EvaluationProtocol
from zsadbench.records.results import Record
from zsadbench.running import runner
from zsadbench.running.plan import make_plan
from zsadbench.running.progress import Recorded, Silent
from zsadbench.running.request import Request
from zsadbench.support import files
from zsadbench.training import checkpoints, cross_dataset, loop
from zsadbench.training.checkpoints import Epoch
from zsadbench.training.job import prepare
from zsadbench.training.request import TrainRequest


class Quality(NamedTuple):
    """Means over the categories of a dataset, in 0..1, of those where the metric is defined."""

    pixel_ap: float
    image_auroc: float


class StageCourse(NamedTuple):
    """How one stage of a training went."""

    losses: tuple[float, ...]  # one a step
    epoch_seconds: tuple[float, ...]  # CPU time of the process

    @property
    def first_loss(self) -> float:
        """The mean loss over the first tenth of the steps."""
        return statistics.fmean(self.losses[: self._tenth])

    @property
    def last_loss(self) -> float:
        """The mean loss over the last tenth of the steps."""
        return statistics.fmean(self.losses[-self._tenth :])

    @property
    def _tenth(self) -> int:
        return -(-len(self.losses) // 10)


@dataclass(frozen=True)
class Outcome:
    """A training, and the target before and after it."""

    stages: tuple[StageCourse, ...]
    untrained: Quality  # with the very weights that the training started from
    trained: Quality

    @property
    def seconds(self) -> float:
        """CPU seconds of all epochs."""
        return sum(sum(stage.epoch_seconds) for stage in self.stages)


def trained_on(dataset: str) -> list[str]:
    """Return the full name of each trained method's preset for a training set, with its variant."""
    found = []
    for listing in methods.available():
        if listing.card is not None:
            preset = cross_dataset.preset_trained_on(methods.lookup(listing.name)[0], dataset)
            found += [f"{listing.name}.{preset}"] if preset is not None else []
    return found


def measure(request: TrainRequest, target: str) -> Outcome:
    """Train as asked and measure a target before and after; `request.out` is an empty folder for all of it.

    Raises what `loop.train` and `runner.run` raise.
    """
    out, job = request.out, prepare(request)
    files.make_folder(out)
    save_file(job.method.ready().state_dict(), out / "untrained.safetensors")
    course = Course()
    loop.train(replace(request, out=out / "trained"), course)
    name = job.facts["method"]
    run = Request(
        methods=[name],
        datasets=[target],
        out=out / "before",
        data_root=request.data_root,
        encoder=request.encoder,
        weights=request.weights,
        checkpoints={name: out / "untrained.safetensors"},
        changes={name: request.changes},
        device=request.device,
        protocol=EvaluationProtocol(precision=request.precision),
    )
    after = replace(run, out=out / "after", checkpoints={name: out / "trained" / checkpoints.WEIGHTS})
    stages = tuple(StageCourse(tuple(losses), tuple(seconds)) for losses, seconds in course.stages)
    return Outcome(stages, untrained=quality(run), trained=quality(after))


def quality(request: Request) -> Quality:
    """Run one method on one dataset and return how good it is. Raises what `runner.run` raises, and a cell's error."""
    cells = _Cells()
    fast = replace(request, fail_fast=True)
    runner.run(make_plan(fast), fast, cells)
    found = [(record.pixel["ap"], record.image["auroc"]) for record in cells.records]
    return Quality(*(statistics.fmean(v for v in values if v is not None) for values in zip(*found, strict=True)))


class Course:
    """A training's Progress that keeps each stage's step losses and the CPU time of its epochs."""

    def __init__(self) -> None:
        self.stages: list[tuple[list[float], list[float]]] = []
        self._losses: list[float] = []
        self._start = 0.0

    @property
    def seconds(self) -> float:
        """CPU seconds of all epochs."""
        return sum(sum(seconds) for _, seconds in self.stages)

    def begin(self, label: str, steps: int, done: int) -> None:
        """Start the clock."""
        self._start = time.process_time()

    def step(self, loss: float) -> None:
        """Keep the loss."""
        self._losses.append(loss)

    def finish_epoch(self, epoch: Epoch) -> None:
        """Give the epoch's losses and time to its stage."""
        if epoch.epoch == 0:
            self.stages.append(([], []))
        losses, seconds = self.stages[-1]
        now = time.process_time()
        losses += self._losses
        seconds.append(now - self._start)
        self._losses, self._start = [], now


class _Cells(Silent):
    """Keeps the records of a run and tells nothing."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def finish_cell(self, recorded: Recorded) -> None:
        """Keep the record."""
        self.records.append(recorded.record)
