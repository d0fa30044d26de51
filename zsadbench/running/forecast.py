"""What a run would do and need, told before it: nothing is loaded, trained, downloaded or written."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from zsadbench import encoders
from zsadbench.errors import MissingWeights, NeedsCheckpoint, NotPossible
from zsadbench.records import run_log, saved_maps
from zsadbench.running.planned import Cell, Plan
from zsadbench.running.request import Request
from zsadbench.support.meters import device_name

AT_ONCE = 2  # categories whose temporary results are on disk: one is measured while the next is predicted


@dataclass(frozen=True)
class CellToRun:
    """One cell, why it runs, and what stands in its way ("": nothing)."""

    method: str
    dataset: str
    category: str
    images: int
    why: str
    problem: str = ""
    fails: bool = False  # the problem is a failure, not an answer such as a checkpoint that is needed


@dataclass(frozen=True)
class EncoderNeeded:
    """The weights of an encoder."""

    spec: str
    methods: tuple[str, ...]
    source: str  # which file, in words
    file: str  # the local one that was given; "" for one that ships or is in the hub's cache
    sha256: str  # "" where they are not here


@dataclass(frozen=True)
class CheckpointNeeded:
    """The trained weights of a method."""

    method: str
    files: tuple[str, ...]
    sha256: str
    training: str = ""  # the command of the training that makes them, if a run does that first


@dataclass(frozen=True)
class Forecast:
    """What a plan needs. Bytes and seconds are None where no earlier run of a method in it tells."""

    cells: tuple[CellToRun, ...]
    done: int
    encoders: tuple[EncoderNeeded, ...]
    checkpoints: tuple[CheckpointNeeded, ...]
    trainings: tuple[str, ...]  # commands, each once
    images: int  # different ones, of all cells that can run
    bytes_kept: int  # of saved maps, at most
    bytes_temporary: int | None  # of predictions and features while the run lasts
    seconds: float | None  # of prediction
    unknown: tuple[str, ...]  # methods that have not run on this machine and device so far

    @property
    def fails(self) -> bool:
        """Tell whether a cell cannot run."""
        return any(cell.fails for cell in self.cells)

    def as_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return asdict(self)


def of(plan: Plan, request: Request) -> Forecast:
    """Return what a plan needs, by it and by what earlier runs have logged."""
    cells = [cell for group in plan.groups for cell in group]
    able = [cell for cell in cells if not _problem(cell, request)[0] or cell.planned.training is not None]
    categories = {(cell.dataset.name, cell.category.name): cell.samples for cell in able}
    rates = _rates(request)
    known = [cell for cell in able if cell.planned.name in rates]
    return Forecast(
        cells=tuple(_told(cell, request) for cell in cells),
        done=len(plan.done),
        encoders=tuple(_encoders(plan, request)),
        checkpoints=tuple(_checkpoints(cells)),
        trainings=tuple(training.request.command for training in plan.trainings),
        images=len({sample.path for samples in categories.values() for sample in samples}),
        bytes_kept=sum(len(cell.samples) for cell in able) * 2 * saved_maps.SIDE**2 if request.save_maps else 0,
        bytes_temporary=_temporary(known, rates) if known else None,
        seconds=sum(len(cell.samples) * rates[cell.planned.name].seconds for cell in known) if known else None,
        unknown=tuple(sorted({cell.planned.name for cell in able} - rates.keys())),
    )


def _told(cell: Cell, request: Request) -> CellToRun:
    problem, fails = _problem(cell, request)
    name, dataset, category = cell.planned.name, cell.dataset.name, cell.category.name
    return CellToRun(name, dataset, category, len(cell.samples), cell.why, problem, fails)


def _problem(cell: Cell, request: Request) -> tuple[str, bool]:
    """Return why a cell cannot run as things are, "" if it can, and whether that is a failure."""
    problem = cell.planned.problem or cell.problem
    if problem is not None and not isinstance(problem, MissingWeights):  # which a run downloads
        return str(problem), not isinstance(problem, NeedsCheckpoint | NotPossible)
    if cell.seen and not request.allow_leak:
        return f"its checkpoint was trained on {cell.seen} of these images; see --allow-leak", True
    return "", False


def _encoders(plan: Plan, request: Request) -> Iterator[EncoderNeeded]:
    methods: dict[str, list[str]] = {}
    digests: dict[str, str] = {}
    for planned in {cell.planned.name: cell.planned for group in plan.groups for cell in group}.values():
        specs = encoders.specs(planned.config)
        for spec, digest in zip(specs, (planned.weights_sha256, planned.text_sha256), strict=False):
            methods.setdefault(spec, []).append(planned.name)
            digests[spec] = digests.get(spec) or digest
    for spec, names in methods.items():
        file = str(request.weights.get(spec, ""))
        yield EncoderNeeded(spec, tuple(names), encoders.weight_source(spec), file, digests[spec])


def _checkpoints(cells: list[Cell]) -> Iterator[CheckpointNeeded]:
    for planned in {cell.planned.name: cell.planned for cell in cells}.values():
        if planned.checkpoint or planned.training is not None:
            training = planned.training.command if planned.training is not None else ""
            files = tuple(path.as_posix() for path in planned.checkpoint)
            yield CheckpointNeeded(planned.name, files, planned.checkpoint_sha256, training)


@dataclass
class _Rate:
    """What a method took in earlier runs."""

    images: int = 0
    total: float = 0.0
    maps: float = 0.0  # bytes an image
    features: float = 0.0

    @property
    def seconds(self) -> float:
        """Seconds an image."""
        return self.total / self.images


def _rates(request: Request) -> dict[str, _Rate]:
    """Return what methods took an image, by full name, in this folder and the ones beside it; lines that fit alone."""
    rates: dict[str, _Rate] = {}
    device, host = device_name(request.device), platform.node()
    runs = {request.out, *(log.parent for log in request.out.parent.glob(f"*/{run_log.FILE}"))}
    for line in (line for run in sorted(runs) for line in run_log.read(run)):
        try:
            if (line["status"], line["device"], line["host"]) == ("done", device, host) and line["images"] > 0:
                rate = rates.setdefault(line["method"], _Rate())
                rate.images += line["images"]
                rate.total += line["seconds_predict"]
                rate.maps = max(rate.maps, line["bytes_maps"] / line["images"])
                rate.features = max(rate.features, line["bytes_features"] / line["images"])
        except (KeyError, TypeError):  # of an earlier version, or damaged
            continue
    return rates


def _temporary(cells: list[Cell], rates: dict[str, _Rate]) -> int:
    """Return the bytes that the largest categories take: features are shared by the methods of a category."""
    categories: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        categories.setdefault((cell.dataset.name, cell.category.name), []).append(cell)
    sizes = [
        len(own[0].samples)
        * (sum(rates[cell.planned.name].maps for cell in own) + max(rates[cell.planned.name].features for cell in own))
        for own in categories.values()
    ]
    return round(sum(sorted(sizes, reverse=True)[:AT_ONCE]))
