"""Measures what training a method costs: a few steps of the real training loop on synthetic pictures."""

from __future__ import annotations

import statistics
import tempfile
from dataclasses import replace
from itertools import chain
from pathlib import Path

from zsadbench import datasets, methods
from zsadbench.data import synthetic
from zsadbench.methods import Method, TrainableMethod
from zsadbench.records.efficiency import ProfileOptions, StageCost, Training
from zsadbench.running.request import Request
from zsadbench.support.meters import clock
from zsadbench.training.checkpoints import Epoch
from zsadbench.training.data import MEMORY_BUDGET
from zsadbench.training.job import Job
from zsadbench.training.loop import SAVE_EVERY, run_job
from zsadbench.training.request import TrainRequest, with_epochs

EPOCHS = 2  # of every stage: in the first one features are computed, in the second those that can be kept are kept


class _StepTimes:
    """A training's Progress that notes how long each step took; the first of an epoch warms up.

    `across`: an epoch is one step, whose time is that from the end of the epoch before.
    """

    def __init__(self, device: str, across: bool) -> None:
        self.device, self.across = device, across
        self.epochs: list[list[float]] = []  # seconds of the steps of each epoch
        self._ends: list[float] = []

    def begin(self, label: str, steps: int, done: int) -> None:
        """Nothing is shown."""

    def step(self, loss: float) -> None:
        """Note when a step ended."""
        self._ends.append(clock(self.device))

    def finish_epoch(self, epoch: Epoch) -> None:
        """Keep the steps of an epoch."""
        self.epochs.append([end - start for start, end in zip(self._ends, self._ends[1:], strict=False)])
        self._ends = self._ends[-1:] if self.across else []


def measure_training(method: Method, request: Request, options: ProfileOptions) -> Training | None:
    """Measure training steps of a method at its recipe's batch size; None for a method or preset without training."""
    if not isinstance(method, TrainableMethod) or not getattr(method.config, "trained_on", ""):
        return None
    recipe = method.recipe
    epochs = options.steps + 1 if recipe.groups else EPOCHS  # with groups an epoch is one step, and warms up nothing
    sizes = [recipe.batch_size_of(stage) for stage in range(len(recipe.stages))]
    short = methods.build(
        type(method), method.name, replace(method.config, recipe=with_epochs(recipe, epochs)), method.encoder
    )
    assert isinstance(short, TrainableMethod)
    short.initialise(seed=0)
    with tempfile.TemporaryDirectory() as folder:
        root = synthetic.write_folder(Path(folder) / "pictures", (options.steps + 1) * max(sizes))
        dataset = datasets.create(f"folder={root}")
        samples = tuple(dataset.samples(synthetic.CATEGORY))
        asked = TrainRequest(
            method.name, dataset.name, Path(folder), device=request.device, precision=request.protocol.precision
        )
        job = Job(asked, short, dataset, samples, {"method": method.name}, identity="measurement")
        times = _StepTimes(request.device, across=recipe.groups > 0)
        position = run_job(job, times, save_every=SAVE_EVERY, memory_budget=MEMORY_BUDGET)
    stages = []
    for i, stage in enumerate(recipe.stages):
        measured = times.epochs[epochs * i : epochs * (i + 1)]
        first, later = [list(chain(*measured[1:]))] * 2 if recipe.groups else measured
        seconds = statistics.median(first), statistics.median(later)
        stages.append(StageCost(stage.name, stage.epochs, sizes[i], len(first), *seconds))
    peaks = [epoch["peak_bytes"] for epoch in position.epochs if epoch["peak_bytes"] is not None]
    return Training(tuple(stages), options.epoch_images, max(peaks, default=None))
