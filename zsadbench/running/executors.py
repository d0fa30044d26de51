"""Where cells run: in this process, in local worker processes, or on a cluster, through joblib's backends.

The unit of work is one category with the methods that share an encoder: what a single process would do in one pass. A
worker writes its records itself, into the run folder that all of them share, so a worker that is killed loses what it
was computing and nothing else; that work is done again.
"""

from __future__ import annotations

import importlib
import pickle
import socket
import tempfile
import warnings
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import cache, lru_cache
from pathlib import Path
from typing import IO, Any

from zsadbench import encoders
from zsadbench.encoders.base import Encoder
from zsadbench.encoders.watch import Watch
from zsadbench.errors import ExecutorError, MissingDependency
from zsadbench.records import results
from zsadbench.running import runner
from zsadbench.running.backends import Backend
from zsadbench.running.plan import standing
from zsadbench.running.planned import Cell, EncoderChoice, Plan, Resolved
from zsadbench.running.progress import Progress, Recorded, Silent
from zsadbench.running.request import Request
from zsadbench.running.runner import Summary
from zsadbench.support import plugins, process, source

TRIES = 3  # times that workers may end in a row without a finished cell between
PATIENCE = 10.0  # seconds that a scheduler has to answer
ENDED = ("TerminatedWorkerError", "BrokenProcessPool", "KilledWorker", "WorkerCrashedError")  # loky, loky, dask, ray


def run(plan: Plan, request: Request, progress: Progress, backend: Backend | None) -> Summary:
    """Run a plan on a backend, or here for None; records are those of `runner.run`.

    Raises what it raises, MissingDependency for a backend that is not installed, and ExecutorError for a cluster that
    cannot be reached or workers that end again and again.
    """
    if backend is None:
        return runner.run(plan, request, progress)
    runner.tidy(plan, request)
    summary = Summary(plan.cells, skipped=len(plan.done))
    left = {_key(cell): cell for group in plan.groups for cell in group}
    progress.begin(plan.cells, plan.images)
    tries = 0
    try:
        while left:
            before = len(left)
            try:
                for recorded in _records(plan, left, request, backend):
                    record = recorded.record
                    images = len(left.pop((record.dataset, record.method, record.category)).samples)
                    summary.add(record)
                    if recorded.seconds:
                        progress.step(f"{record.dataset}/{record.category}", images)
                    else:
                        progress.skip(images)
                    progress.finish_cell(recorded)
            except Exception as error:
                if type(error).__name__ not in ENDED:
                    raise
                tries = tries + 1 if len(left) == before else 0
                if tries == TRIES:
                    raise ExecutorError(
                        f"Workers of --executor {backend.name} ended {TRIES} times without finishing a cell ({error}); "
                        "memory may be short. Finished cells are kept: run the same command with fewer workers."
                    ) from error
    finally:
        runner.sweep(request.out)  # a worker that dies takes its neighbours with it, maybe in the middle of a write
    return summary


def _key(cell: Cell) -> tuple[str, str, str]:
    return cell.dataset.name, cell.planned.name, cell.category.name


def _records(
    plan: Plan, left: Collection[tuple[str, str, str]], request: Request, backend: Backend
) -> Iterator[Recorded]:
    """Yield the records of those cells of a plan that are left, as they are finished."""
    from joblib import Parallel, delayed

    parts = (part for group in plan.groups for part in runner.by_category(group))
    wanted = filter(None, ([cell for cell in part if _key(cell) in left] for part in parts))
    folders = plugins.added_folders()
    local = backend.name == "loky"  # its workers are children of this process
    with _joblib(backend), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "A worker stopped", UserWarning)  # loky renews workers that keep an encoder
        parallel = Parallel(n_jobs=backend.workers or -1, batch_size=1, return_as="generator_unordered")
        # A generator: a part is made when joblib sends it, soon before a worker is free.
        for records, notes in parallel(delayed(_work)(pack(cells, request), folders, local) for cells in wanted):
            for note in notes:
                warnings.warn(note, stacklevel=1)
            yield from records


def pack(cells: Sequence[Cell], request: Request) -> bytes:
    """Return some cells of one category as a worker gets them: nothing in it grows with the rest of the run.

    Pickled here, because a worker must know the plugins' folders before it can read the methods of its cells.
    """
    own = [replace(cell, dataset=cell.dataset.unlisted()) for cell in cells]
    return pickle.dumps((own, replace(request, methods=(), datasets=(), categories=())))


def _work(pickled: bytes, folders: Sequence[Path], local: bool) -> tuple[list[Recorded], list[str]]:
    """In a worker: run cells of one category that share an encoder; returns their records and the warnings."""
    if local:
        process.end_with_parent()
    for folder in folders:
        plugins.add_folder(folder)
    cells, request = pickle.loads(pickled)
    check_code(cells)
    request = replace(request, device=own_device(request.device))
    left = tuple(cell for cell in cells if not standing(cell, request).done)
    finished = [
        Recorded(results.load(cell.path(request.out)), 0.0, request.protocol.seed) for cell in cells if cell not in left
    ]
    watch = _Collector()
    with warnings.catch_warnings(record=True) as caught:
        runner.run_cells(Plan((left,) if left else (), (), Resolved([], {}), {}), request, watch, _keep_encoder)
    return [*finished, *watch.records], [str(one.message) for one in caught]


class _Collector(Silent):
    """A Progress that keeps the records: of a failed cell, its file may be that of an earlier success."""

    def __init__(self) -> None:
        self.records: list[Recorded] = []

    def finish_cell(self, recorded: Recorded) -> None:
        """Keep the record."""
        self.records.append(recorded)


def check_code(cells: Sequence[Cell]) -> None:
    """Raise ExecutorError where a worker's code is not the one that the cells are recorded under."""
    here = source.of_harness(source.RESULTS)
    for cell in cells:
        code = cell.parts["code"]
        if (code["zsadbench"], code["method"]) != (here, source.of_plugin(cell.planned.method)):
            raise ExecutorError(
                f"The worker on {socket.gethostname()} has other code of zsadbench or of {cell.planned.name} than this "
                "process. Install the same version there, restart the worker, and run the same command again."
            )


def _keep_encoder(choice: EncoderChoice, request: Request) -> Encoder | None:
    """Load an encoder for a worker, which will probably need the same one for its next category.

    One that a method has changed since is loaded anew.
    """
    needed = choice, request.device, request.protocol.precision, tuple(sorted(request.weights.items()))
    encoder, watch = _kept(*needed)
    if watch is not None and watch.changed():
        _kept.cache_clear()
        encoder, _ = _kept(*needed)
    return encoder


@lru_cache(maxsize=1)
def _kept(
    choice: EncoderChoice, device: str, precision: str, weights: tuple[tuple[str, Path], ...]
) -> tuple[Encoder | None, Watch | None]:
    encoder = encoders.load_for(choice, device=device, precision=precision, weights=dict(weights))
    return encoder, Watch(encoder) if encoder is not None else None


def own_device(device: str) -> str:
    """Return the device of this worker: for "cuda" a GPU that no other worker of this machine has, kept until it ends.

    Raises ExecutorError where there are more workers than GPUs.
    """
    if device != "cuda":
        return device
    import torch

    gpus = [str(torch.cuda.get_device_properties(i).uuid) for i in range(torch.cuda.device_count())]
    index, _ = claim(tuple(gpus), Path(tempfile.gettempdir()))
    return f"cuda:{index}"


@cache  # holds the open file, and so the lock, until the process ends
def claim(names: tuple[str, ...], folder: Path) -> tuple[int, IO[str]]:
    """Return the index of the first name that no other process has claimed, and the file whose lock is the claim.

    The system drops locks even when a process is killed. Raises ExecutorError.
    """
    import fcntl

    for index, name in enumerate(names):
        file = (folder / f"zsadbench-gpu-{name}.lock").open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            continue
        return index, file
    raise ExecutorError(
        f"This worker finds no free GPU: {len(names)} in all, each taken by another worker. Start one worker a GPU."
    )


def _joblib(backend: Backend) -> Any:
    """Return the context in which joblib uses the backend. Raises MissingDependency or ExecutorError."""
    import joblib

    if backend.name == "loky":
        return joblib.parallel_config("loky")
    if backend.name == "ray":
        _imported("ray.util.joblib", "ray").register_ray()
        return joblib.parallel_config("ray")
    client = _imported("distributed", "zsadbench[dask]").Client
    try:
        client(backend.address, timeout=PATIENCE, set_as_default=True)
    except (OSError, TimeoutError) as error:
        raise ExecutorError(
            f"No dask scheduler answers at {backend.address} ({error}). Start one with `dask scheduler`, and workers "
            f"with `dask worker {backend.address} --nthreads 1`."
        ) from error
    return joblib.parallel_config("dask", wait_for_workers_timeout=60)


def _imported(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingDependency(
            f'This --executor needs the package {error.name!r}. Install it with: pip install "{package}"'
        ) from error
