"""The only training loop: stages of a recipe over the test split of an auxiliary dataset, resumable at any step.

A killed training goes on from its last saved state and, on a CPU, ends in the same weights bit for bit: what is drawn
depends on the seed and the position alone (`zsadbench.training.data`), so the state is the weights, the optimiser and
the position.
"""

from __future__ import annotations

import io
import math
import typing
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR

from zsadbench.data import contents
from zsadbench.data.images import DECODERS
from zsadbench.data.pictures import Pictures
from zsadbench.encoders.kept import passes
from zsadbench.errors import PluginError, UsageError, WeightsError, ZsadError
from zsadbench.methods import Stage
from zsadbench.support import calls, environment, files
from zsadbench.support.meters import Meter, few_threads
from zsadbench.support.spill import Spill
from zsadbench.support.store import Store
from zsadbench.training import checkpoints
from zsadbench.training.checkpoints import STATE, Epoch
from zsadbench.training.data import MEMORY_BUDGET, FeatureCache, Place, TrainingData, TrainingStep
from zsadbench.training.job import Job, prepare
from zsadbench.training.request import TrainRequest

SAVE_EVERY = 200  # steps; the state is also saved after each epoch
OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


class Diverged(ZsadError):
    """A loss or weight that is no finite number."""


class TrainingProgress(typing.Protocol):
    """What a training tells while it works; the command line draws a bar from it."""

    def begin(self, label: str, steps: int, done: int) -> None:
        """Announce a training of `steps` steps, of which some were done before."""

    def step(self, loss: float) -> None:
        """Report one more step and its loss."""

    def finish_epoch(self, epoch: Epoch) -> None:
        """Report the mean loss, time and memory of an epoch."""


class SilentTraining:
    """A TrainingProgress that tells nothing."""

    def begin(self, label: str, steps: int, done: int) -> None:
        """Show nothing."""

    def step(self, loss: float) -> None:
        """Show nothing."""

    def finish_epoch(self, epoch: Epoch) -> None:
        """Show nothing."""


@dataclass
class Position:
    """How far a training is: what is saved beside the weights and the optimiser."""

    stage: int = 0
    epoch: int = 0
    step: int = 0  # steps done in this epoch
    sums: dict[str, float] = field(default_factory=dict)  # of the loss terms over the images of this epoch
    seconds: float = 0.0  # spent in this epoch
    epochs: list[dict[str, Any]] = field(default_factory=list)  # finished ones: fields of checkpoints.Epoch


def train(
    request: TrainRequest,
    progress: TrainingProgress,
    *,
    save_every: int = SAVE_EVERY,
    memory_budget: int | None = MEMORY_BUDGET,
) -> Path:
    """Train a method and write its checkpoint to `request.out`; goes on where an earlier call was interrupted.

    memory_budget: bytes of encoder features kept in memory for later epochs; None computes them anew each epoch.
    Raises UsageError, DataError, WeightsError before anything is written; Diverged when the loss is no number.
    """
    job = prepare(request)
    if _is_finished(job):
        return request.out
    files.make_folder(request.out)
    files.sweep(request.out)
    position = run_job(job, progress, save_every=save_every, memory_budget=memory_budget)
    _finish(job, position)
    return request.out


def run_job(job: Job, progress: TrainingProgress, *, save_every: int, memory_budget: int | None) -> Position:
    """Run the steps of a job from its last saved state to its end, and return the final position.

    Nothing but that state is written. Raises DataError; Diverged when the loss is no number.
    """
    out, device, stages = job.request.out, job.request.device, job.method.recipe.stages
    encoder = job.method.encoder
    threads = few_threads(device, encoder.parameters if encoder is not None else 0)
    with threads, ThreadPoolExecutor(DECODERS) as pool, closing(Spill(out)) as spill:
        cache = None
        if memory_budget is not None and sum(stage.epochs for stage in stages) > 1:
            cache = FeatureCache(len(job.samples), spill, out, memory_budget)
        store = Store(job.request.cache, job.request.cache_limit) if job.request.cache is not None else None
        data = TrainingData(
            job.dataset, job.samples, job.method.preprocess,
            device=device, seed=job.request.seed, pool=pool, cache=cache,
            pictures=_pictures(job, store), kept=passes(encoder, job.watch, store),
        )  # fmt: skip
        return _Loop(job, data, progress, save_every).run()


def _pictures(job: Job, store: Store | None) -> Pictures | None:
    if store is None:
        return None
    return Pictures(contents.digests(job.dataset.root, [sample.image for sample in job.samples]), store)


class _Loop:
    """The steps of a job from its last saved state to its end."""

    def __init__(self, job: Job, data: TrainingData, progress: TrainingProgress, save_every: int) -> None:
        self.job, self.data, self.progress, self.save_every = job, data, progress, save_every
        self.method, self.recipe, self.device = job.method, job.method.recipe, job.request.device
        assert self.method.trained is not None
        self.trained = self.method.trained.train()
        stages = range(len(self.recipe.stages))
        self.images = [self.recipe.epoch_size_of(i, len(job.samples)) for i in stages]  # in an epoch of each stage
        self.steps = [-(-self.images[i] // self.recipe.batch_size_of(i)) for i in stages]  # likewise
        self.position = Position()
        self.optimiser: torch.optim.Optimizer | None = None
        self.schedule: LambdaLR | None = None

    def run(self) -> Position:
        """Train to the end and return the final position, with the loss curve."""
        saved = _load_state(self.job)
        if saved is not None:
            self.position = Position(**saved["position"])
            self.trained.load_state_dict(saved["trained"])
        done = self.position.step + sum(self.steps[epoch["stage"]] for epoch in self.position.epochs)
        total = sum(steps * stage.epochs for steps, stage in zip(self.steps, self.recipe.stages, strict=True))
        self.progress.begin(f"{self.job.facts['method']} on {self.job.dataset.name}", total, done)
        while self.position.stage < len(self.recipe.stages):
            stage = self.recipe.stages[self.position.stage]
            self.optimiser = _optimiser(stage, self.trained, self.method.name)
            if saved is not None and saved["optimiser"] is not None:
                self.optimiser.load_state_dict(saved["optimiser"])
            saved = None
            self.schedule = self.rates(stage)
            while self.position.epoch < stage.epochs:
                self.run_epoch(stage)
            self.position.stage, self.position.epoch, self.optimiser = self.position.stage + 1, 0, None
        self.trained.eval()
        return self.position

    def rates(self, stage: Stage) -> LambdaLR:
        """Set the optimiser's learning rates to those of the position, and return what moves them on."""
        assert self.optimiser is not None
        steps, schedule = self.steps[self.position.stage], stage.schedule
        done, total = self.position.epoch * steps + self.position.step, stage.epochs * steps
        factor = (lambda step: 1.0) if schedule is None else (lambda step: schedule.factor(step, total))
        return LambdaLR(self.optimiser, factor, last_epoch=done - 1)

    def run_epoch(self, stage: Stage) -> None:
        """Run what is left of an epoch, and save the state after it."""
        position, steps, meter = self.position, self.steps[self.position.stage], Meter(self.device)
        for batch in self.data.batches(self.recipe, Place(position.stage, position.epoch), position.step):
            self.run_step(batch, stage)
            position.step += 1
            position.seconds += meter.lap()
            if position.step % self.save_every == 0 and position.step < steps:
                self.save()
        terms = {name: total / self.images[position.stage] for name, total in position.sums.items()}
        loss = math.fsum(terms.values())
        epoch = Epoch(position.stage, position.epoch, loss, terms, position.seconds, meter.peak_bytes)
        position.epochs.append(asdict(epoch))
        position.epoch, position.step, position.sums, position.seconds = position.epoch + 1, 0, {}, 0.0
        self.save()
        self.progress.finish_epoch(epoch)

    def run_step(self, batch: TrainingStep, stage: Stage) -> None:
        """Take one optimiser step. Raises Diverged naming the step and the batch's files."""
        assert self.optimiser is not None and self.schedule is not None
        terms = self.loss(batch, stage)
        loss = torch.stack(list(terms.values())).sum()
        values = {name: float(term.detach()) for name, term in terms.items()}
        if not all(map(math.isfinite, values.values())):
            raise Diverged(self._diverged(values, batch))
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.optimiser.step()
        self.schedule.step()
        for name, value in values.items():
            self.position.sums[name] = self.position.sums.get(name, 0.0) + value * len(batch)
        self.progress.step(math.fsum(values.values()))

    def loss(self, batch: TrainingStep, stage: Stage) -> dict[str, torch.Tensor]:
        """Return the terms of the loss. Raises Harm if the method changes the encoder or a setting meanwhile."""
        action = partial(self.method.loss, batch, batch.labels, batch.masks, stage.name)
        plugin = calls.Plugin(self.method.name, type(self.method))
        seed = batch.generator.initial_seed() % 2**32
        terms: dict[str, torch.Tensor] = calls.call(plugin, action, seed, shared=self.job.watch)
        return terms

    def save(self) -> None:
        """Write the state, whole or not at all. Raises RecordError."""
        state = {
            "identity": self.job.identity,
            "position": asdict(self.position),
            "trained": self.trained.state_dict(),
            "optimiser": self.optimiser.state_dict() if self.optimiser is not None else None,
        }
        content = io.BytesIO()
        torch.save(state, content)  # written by us, so that a disk that is full says so
        files.write_atomically(self.job.request.out / STATE, content.getvalue())

    def _diverged(self, values: Mapping[str, float], batch: TrainingStep) -> str:
        position = self.position
        terms = ", ".join(f"{name} {value}" for name, value in values.items())
        files = ", ".join(map(str, batch.files))
        return (
            f"{self.job.facts['method']}: the loss is no finite number ({terms}) in stage {position.stage + 1}, epoch "
            f"{position.epoch + 1}, step {position.step + 1} of {self.steps[position.stage]}, on {files}. Look at "
            "these images, or lower the learning rate in the recipe."
        )


def _optimiser(stage: Stage, trained: torch.nn.Module, name: str) -> torch.optim.Optimizer:
    """Return the stage's optimiser; only its parameters keep gradients. Raises PluginError if it has none."""
    chosen: dict[float, list[torch.nn.Parameter]] = {}  # by learning rate
    for parameter_name, parameter in trained.named_parameters():
        parameter.requires_grad_(parameter_name.startswith(stage.parameters))
        parameter.grad = None
        if parameter.requires_grad:
            chosen.setdefault(stage.rate(parameter_name), []).append(parameter)
    if not chosen:
        raise PluginError(f"method {name}: no trained parameter starts with {' or '.join(stage.parameters)}.")
    make = OPTIMISERS[stage.optimiser]
    groups = [{"params": parameters, "lr": rate} for rate, parameters in chosen.items()]
    return make(groups, betas=stage.betas, weight_decay=stage.weight_decay)


def _load_state(job: Job) -> dict[str, Any] | None:
    """Return the saved state of this very training, None if there is none. Raises UsageError, WeightsError."""
    path = job.request.out / STATE
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location=job.request.device, weights_only=True)
    except Exception as error:  # damaged bytes make torch.load raise nearly anything
        raise WeightsError(f"{path} is no state of a training ({error}). Delete it and start again.") from error
    if state["identity"] != job.identity:
        raise UsageError(
            f"{job.request.out} holds an unfinished training with other options, data, encoder or code; expected this "
            f"one's. Choose another --out, or delete {path}."
        )
    return dict(state)


def _is_finished(job: Job) -> bool:
    """Tell whether the checkpoint is there. Raises UsageError if the folder holds one of another training."""
    out = job.request.out
    if not (out / checkpoints.CARD).exists():
        return False
    card = checkpoints.load(out)
    different = [name for name, value in job.facts.items() if getattr(card, name) != value]
    if different:
        raise UsageError(
            f"{out} holds a finished checkpoint of {card.method} with another {' and '.join(different)}; choose "
            "another --out, or delete it."
        )
    return True


def _finish(job: Job, position: Position) -> None:
    """Write the checkpoint and drop the state. Raises Diverged or RecordError."""
    assert job.method.trained is not None
    tensors = job.method.trained.state_dict()
    broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise Diverged(f"{job.facts['method']}: the last step left no finite number in {', '.join(broken[:3])}.")
    peaks = [epoch["peak_bytes"] for epoch in position.epochs if epoch["peak_bytes"] is not None]
    measured = {
        "environment": {**environment.describe(job.request.device), "precision": job.request.precision},
        "epochs": position.epochs,
        "seconds": math.fsum(epoch["seconds"] for epoch in position.epochs),
        "peak_bytes": max(peaks, default=None),
    }
    checkpoints.save(job.request.out, tensors, {**job.facts, **measured})
    (job.request.out / STATE).unlink(missing_ok=True)
