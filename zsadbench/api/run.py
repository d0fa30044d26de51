"""What the commands `run`, `train` and `profile` do, in Python."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zsadbench.api.runs import Run
from zsadbench.errors import UnknownName

if TYPE_CHECKING:
    from pandas import DataFrame

    from zsadbench.running.progress import Progress
    from zsadbench.trackers import Tracker
    from zsadbench.training.loop import TrainingProgress

Names = str | Sequence[str]
DEFAULTS = {"methods": "all", "datasets": "demo", "checkpoints": "checkpoints", "device": "auto"}  # of `evaluate`
PROFILED = ("method", "title", "status", "error", "device", "precision", "parameters", "flops")


def evaluate(
    methods: Names = "all",
    datasets: Names = "demo",
    *,
    out: str | Path = "runs/default",
    root: str | Path | None = None,
    encoder: str | None = None,
    weights: Mapping[str, str | Path] | str | Path | None = None,
    checkpoints: Mapping[str, str | Path] | None = None,
    checkpoint_folder: str | Path | None = "checkpoints",
    train: bool = True,
    options: Mapping[str, Any] | None = None,
    sweep: Mapping[str, Any] | None = None,
    seeds: str | Sequence[int] = (),
    categories: Names = (),
    device: str = "auto",
    allow_leak: bool = False,
    fail_fast: bool = False,
    save_maps: bool = False,
    overwrite: bool = False,
    executor: str = "",
    cache: str | Path | None = None,
    cache_limit: str | int | None = None,
    timeout_per_batch: float | None = None,
    plugins: Sequence[str | Path] = (),
    spec: str | Path | None = None,
    progress: bool = True,
    trackers: Sequence[str | Tracker] = (),
    **protocol: Any,
) -> Run:
    """Run methods on data sets and return the run; finished cells in `out` are kept, as `zsadbench run` does.

    methods, datasets, categories: names, or one text separated by commas; "all" is every method, NAME=FOLDER names a
    data set's folder. root: the folder with one folder a data set. encoder: a SPEC for every method. weights: SPEC ->
    file. checkpoints: method -> trained weights. options: "METHOD.OPTION" -> value. sweep: "METHOD.OPTION" ->
    several values: the method runs with each of them, as variants such as "fiseclip[lambda_=1.05]". device: "auto",
    "cpu", "cuda", "cuda:N". cache: a folder that keeps decoded images and encoder passes for later runs, up to
    cache_limit such as "50GB". timeout_per_batch: seconds; a cell of a method fails when one of its calls takes longer.
    seeds: several numbers; what a seed varies runs with each. spec: a TOML file with the options of `zsadbench run`,
    such as the `spec.toml` of a run; arguments that are not their defaults win over it. trackers: names such as
    "tensorboard" or "mlflow", or objects of `zsadbench.trackers.Tracker`.
    progress: show, where standard error is a terminal, a bar as the command line does, and in a notebook a line a cell;
    False shows nothing. protocol: fields of `zsadbench.protocol.EvaluationProtocol`, such as limit=4 or seed=1.

    Cells that fail are in the result's `failed`. Data that cannot be right, such as a test split without a normal
    image, is a warning. Raises UsageError, DataError or RecordError before anything runs.

    Example:

        >>> import zsadbench as z
        >>> run = z.evaluate("constant", "demo", out="runs/example", limit=2)
        >>> [record.status for record in run.records]
        ['done', 'done', 'done', 'done']
    """
    from zsadbench.running import backends, trainings
    from zsadbench.running import seeds as by_seed
    from zsadbench.running import spec as specs
    from zsadbench.running.request import make_request
    from zsadbench.trackers import Trackers

    asked: dict[str, Any] = {
        "methods": methods, "datasets": datasets, "data-root": root, "encoder": encoder, "weights": weights or {},
        "checkpoint": checkpoints or {}, "checkpoints": checkpoint_folder, "no-train": not train, "set": options or {},
        "sweep": sweep or {}, "seeds": seeds, "categories": categories, "device": device, "allow-leak": allow_leak,
        "fail-fast": fail_fast, "save-maps": save_maps, "cache": cache, "cache-limit": cache_limit,
        "timeout-per-batch": timeout_per_batch, "plugins": plugins,
        **{name.replace("_", "-"): value for name, value in protocol.items()},
    }  # fmt: skip
    if spec is not None:
        given = {name: value for name, value in asked.items() if value and value != DEFAULTS.get(name)}
        asked |= specs.beside(specs.read(Path(spec)), given)
    kept = make_request(out=out, overwrite=overwrite, **specs.arguments(asked))
    backend, followers = backends.parse(executor), Trackers(trackers)
    runs = by_seed.make_plans(kept.on_device())
    specs.write(kept)
    with followers.following(runs, kept.out):
        with _training(progress) as told:
            for number, (request, plan) in enumerate(runs):
                done = trainings.train_missing(plan, request, followers.training(told))
                runs[number] = by_seed.SeedRun(request, done)
        for message in dict.fromkeys(one.message for run in runs for one in run.plan.findings if one.wrong):
            warnings.warn(message, stacklevel=2)
        with _running(progress) as bars:
            by_seed.run(runs, followers.progress(bars), backend)
    return Run((kept.out,))


def train(
    method: str,
    dataset: str,
    *,
    out: str | Path,
    root: str | Path | None = None,
    encoder: str | None = None,
    weights: Mapping[str, str | Path] | str | Path | None = None,
    options: Mapping[str, Any] | None = None,
    device: str = "auto",
    precision: str = "fp32",
    seed: int = 0,
    epochs: int | None = None,
    limit: int | None = None,
    cache: str | Path | None = None,
    cache_limit: str | int | None = None,
    plugins: Sequence[str | Path] = (),
    progress: bool = True,
) -> Path:
    """Train a method on the test split of an auxiliary data set and return the checkpoint's folder.

    options: OPTION -> value of the method. epochs: of every stage, None for the recipe's. limit: images a category.
    cache, cache_limit, progress: as in `evaluate`. An unfinished training in `out` goes on. Raises UsageError,
    DataError, WeightsError; Diverged for a loss that is no number.

    Example:

        >>> import zsadbench as z
        >>> folder = z.train("april_gan.demo", "demo.train", out="checkpoints/example", epochs=1, limit=2)
        >>> sorted(path.name for path in folder.iterdir())
        ['card.json', 'weights.safetensors']
    """
    from zsadbench.running.request import make_train_request
    from zsadbench.training import loop

    request = make_train_request(
        method, dataset, out=out, data_root=root, encoder=encoder, weights=weights, changes=options, device=device,
        precision=precision, seed=seed, epochs=epochs, limit=limit, cache=cache, cache_limit=cache_limit,
        plugin_folders=plugins,
    )  # fmt: skip
    with _training(progress) as told:
        return loop.train(request, told)


def _running(wanted: bool) -> AbstractContextManager[Progress]:
    """Return what tells how a run goes on while the block runs."""
    from zsadbench.api import progress
    from zsadbench.running.progress import Silent

    return progress.console_progress(quiet=False) if wanted and progress.is_watched() else nullcontext(Silent())


def _training(wanted: bool) -> AbstractContextManager[TrainingProgress]:
    """Return what tells how trainings go on while the block runs."""
    from zsadbench.api import progress
    from zsadbench.training import loop

    shown = wanted and progress.is_watched()
    return progress.console_training(quiet=False) if shown else nullcontext(loop.SilentTraining())


def profile(
    methods: Names = "all",
    *,
    dataset: str = "",
    out: str | Path = "runs/default",
    encoder: str | None = None,
    weights: Mapping[str, str | Path] | str | Path | None = None,
    options: Mapping[str, Any] | None = None,
    device: str = "auto",
    precision: str = "fp32",
    plugins: Sequence[str | Path] = (),
    **measurement: Any,
) -> DataFrame:
    """Measure what methods cost and return a frame, one row a method and batch size; records go to `out`/efficiency.

    dataset: take the presets and the encoder of a run on it. options: "METHOD.OPTION" -> value. measurement: fields of
    `zsadbench.records.efficiency.ProfileOptions`, such as batches=(1, 8), train=True or random_weights=True. Times are
    milliseconds an image, memory is bytes; a failed method has its reason in column `error`. Each method is measured in
    a process of its own, which imports the script that calls this: there the call stands below
    `if __name__ == "__main__":`; a notebook needs nothing. Raises UsageError.

    Example:

        >>> import zsadbench as z
        >>> frame = z.profile("constant", batches=(1,), warmup=0, repeat=1, threads=1)
        >>> frame[["method", "batch", "status"]].values.tolist()
        [['constant', 1, 'done']]
    """
    import pandas

    from zsadbench.profiling import measure
    from zsadbench.records import efficiency
    from zsadbench.running.request import make_request

    request = make_request(
        methods=methods, datasets=[dataset] if dataset else (), out=out, encoder=encoder, weights=weights,
        changes=options, device=device, protocol={"precision": precision}, plugin_folders=plugins,
    ).on_device()  # fmt: skip
    known = [field.name for field in fields(efficiency.ProfileOptions)]
    for name in measurement.keys() - known:
        raise UnknownName("option of profile", name, known)
    asked = efficiency.ProfileOptions(**{"plugin_folders": tuple(Path(folder) for folder in plugins), **measurement})
    rows = []
    for record in measure.profile(request, asked):
        efficiency.save(request.out, record)
        facts = {name: getattr(record, name) for name in PROFILED}
        rows += [facts | asdict(timing) for timing in record.timings] or [facts]
    return pandas.DataFrame(rows)
