"""What a run tells tools that follow experiments, such as TensorBoard and MLflow (`zsadbench run --tracker NAME`).

A tracker is a module of this folder, or one that an installed package names in the entry-point group
`zsadbench.trackers`: one class decorated with @register. It is told what happened and decides no number; the records
are written before it hears of them.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from zsadbench import __version__
from zsadbench.errors import PluginError, RecordError
from zsadbench.records import results
from zsadbench.running.progress import Progress, Recorded, Relay
from zsadbench.running.seeds import SeedRun
from zsadbench.support import plugins, process, traces
from zsadbench.tables import quality
from zsadbench.tables.quality import Number
from zsadbench.training.loop import TrainingProgress

if TYPE_CHECKING:
    from zsadbench.training.checkpoints import Epoch

PACKAGE = "zsadbench.trackers"


@dataclass(frozen=True)
class RunFacts:
    """What is known of a run when it starts."""

    out: Path  # the run folder, absolute
    methods: tuple[str, ...]  # full names
    datasets: tuple[str, ...]
    cells: int  # to run
    done: int  # finished before, and left alone
    seeds: tuple[int, ...]
    protocol: Mapping[str, Any]  # fields of `EvaluationProtocol`; of several seeds the first
    device: str
    version: str = __version__  # of zsadbench


class Tracker:
    """Base of trackers: each method is told something, and does nothing unless it is overridden.

    They are called in the process that was started, one after the other, also where workers compute. One that raises is
    a note, and that tracker is told nothing more of the run, which goes on.
    """

    def start(self, facts: RunFacts) -> None:
        """Begin: all is planned, and nothing was trained or predicted."""

    def cell(self, recorded: Recorded) -> None:
        """Take a cell that was just recorded, also one without numbers; metrics of the record are in 0..1."""

    def epoch(self, training: str, epoch: Epoch) -> None:
        """Take an epoch of a training, which is called "METHOD on DATASET"."""

    def end(self, numbers: Sequence[Number], complete: bool) -> None:
        """Finish. numbers: those of the run folder's table, in percent; complete: the run was not interrupted."""


T = TypeVar("T", bound=type[Tracker])


def register(tracker: T) -> T:
    """Make a class known as the tracker of its module, whose name is the tracker's name. Raises PluginError."""
    plugins.register(tracker, ())
    return tracker


def metrics_of(recorded: Recorded) -> dict[str, float]:
    """Return the metrics of a record, "image_auroc" and the like, in percent; those that are undefined are left out."""
    record = recorded.record
    levels = {"image": record.image, "pixel": record.pixel}
    return {
        f"{level}_{name}": 100 * value
        for level, values in levels.items()
        for name, value in values.items()
        if value is not None
    }


class Trackers:
    """The trackers of a run; none is fine."""

    def __init__(self, trackers: Iterable[str | Tracker]) -> None:
        """Find and make those that are named. Raises UnknownName, MissingDependency, PluginError."""
        self._trackers: dict[str, Tracker] = {}
        for number, name in enumerate(dict.fromkeys(trackers)):
            if isinstance(name, Tracker):
                self._trackers[f"{type(name).__name__} ({number + 1})"] = name
                continue
            kind = plugins.registered(PACKAGE, name, Tracker)
            try:
                self._trackers[name] = kind()
            except Exception as error:
                raise PluginError(f"tracker {name} cannot be made: {traces.sentence(error)}.") from error

    @contextmanager
    def following(self, runs: Sequence[SeedRun], out: Path) -> Iterator[None]:
        """Let them follow a run, of one seed or several, while the block runs."""
        if not self._trackers:
            yield
            return
        self.tell(lambda tracker: tracker.start(_facts(runs, out)))
        complete = False
        try:
            yield
            complete = True
        finally:
            numbers = _numbers(out)
            self.tell(lambda tracker: tracker.end(numbers, complete))

    def tell(self, action: Callable[[Tracker], None]) -> None:
        """Tell something to each tracker; one that raises is left out from then on, and a warning says so."""
        for name, tracker in list(self._trackers.items()):
            try:
                action(tracker)
            except BaseException as error:  # it must not end the run, whatever it does
                if isinstance(error, KeyboardInterrupt) and process.is_users(error):
                    raise
                del self._trackers[name]
                warnings.warn(
                    f"tracker {name}: {traces.sentence(error)}. It is told nothing more of this run, which goes on.",
                    stacklevel=2,
                )

    def progress(self, progress: Progress) -> Progress:
        """Return a Progress that tells the trackers as well."""
        return _Cells(progress, self)

    def training(self, progress: TrainingProgress) -> TrainingProgress:
        """Return a TrainingProgress that tells the trackers as well."""
        return _Epochs(progress, self)


class _Cells(Relay):
    """A Progress that tells trackers of cells."""

    def __init__(self, progress: Progress, trackers: Trackers) -> None:
        super().__init__(progress)
        self._trackers = trackers

    def finish_cell(self, recorded: Recorded) -> None:
        """Pass it on; each tracker gets a copy, which it may change."""
        super().finish_cell(recorded)
        self._trackers.tell(lambda tracker: tracker.cell(copy.deepcopy(recorded)))


class _Epochs:
    """A TrainingProgress that tells trackers of epochs."""

    def __init__(self, progress: TrainingProgress, trackers: Trackers) -> None:
        self._progress, self._trackers, self._label = progress, trackers, ""

    def begin(self, label: str, steps: int, done: int) -> None:
        """Pass it on."""
        self._label = label
        self._progress.begin(label, steps, done)

    def step(self, loss: float) -> None:
        """Pass it on."""
        self._progress.step(loss)

    def finish_epoch(self, epoch: Epoch) -> None:
        """Pass it on."""
        self._progress.finish_epoch(epoch)
        self._trackers.tell(lambda tracker: tracker.epoch(self._label, copy.deepcopy(epoch)))


def _facts(runs: Sequence[SeedRun], out: Path) -> RunFacts:
    plans = [one.plan for one in runs]
    first = runs[0].request
    return RunFacts(
        out=out.absolute(),
        methods=tuple(dict.fromkeys(full for plan in plans for full, _, _ in plan.resolved.chosen)),
        datasets=tuple(dict.fromkeys(dataset.name for plan in plans for dataset in plan.datasets)),
        cells=sum(plan.cells for plan in plans),
        done=sum(len(plan.done) for plan in plans),
        seeds=tuple(one.request.protocol.seed for one in runs),
        protocol=asdict(first.protocol),
        device=first.device,
    )


def _numbers(out: Path) -> list[Number]:
    """Return the numbers of a run's table; none where it has none yet."""
    folders = results.folders(out)
    try:
        records = [record for folder in folders for record in results.load_run(folder)]
        return quality.rows(records, "dataset", seeds=len(folders) > 1)
    except RecordError as error:
        warnings.warn(f"trackers get no means: {error}", stacklevel=2)
        return []
