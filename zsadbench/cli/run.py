"""`zsadbench run`: methods on datasets. No logic lives here."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zsadbench.cli.options import (
    DATA,
    DEFAULT_RUN,
    EXECUTION,
    METHODS,
    OUTPUT,
    PROTOCOL,
    AsJson,
    Cache,
    CacheLimit,
    Categories,
    Checkpoints,
    DataRoot,
    Device,
    Encoder,
    Limit,
    NoTrain,
    Overwrite,
    Plugins,
    Precision,
    Quiet,
    Set,
    Weights,
    add_plugins,
    changes_of,
    checkpoints_of,
    complete_datasets,
    complete_methods,
    from_spec,
    option,
    say,
    say_encoder,
    show,
    sweep_of,
    weights_of,
)
from zsadbench.cli.train import CHECKPOINTS, train_missing
from zsadbench.errors import counted

if TYPE_CHECKING:
    from zsadbench.running.runner import Summary


def run(
    ctx: typer.Context,
    methods: Annotated[
        str,
        option(METHODS, "NAMES", '"all", or names like winclip,april_gan.visa.', autocompletion=complete_methods),
    ] = "all",
    set_: Set = None,
    sweep: Annotated[
        list[str] | None,
        option(METHODS, "M.FIELD=VALUES", "Run a variant with each of VALUE,VALUE,...; several multiply."),
    ] = None,
    checkpoint: Annotated[
        list[str] | None, option(METHODS, "M=PATH", "Trained weights: official files, or a folder of ours.")
    ] = None,
    checkpoints: Checkpoints = CHECKPOINTS,
    no_train: NoTrain = False,
    allow_leak: Annotated[
        bool, option(METHODS, "", "Run checkpoints on data they were trained on, marked.", "--allow-leak")
    ] = False,
    datasets: Annotated[
        str,
        option(
            DATA,
            "NAMES",
            "Like mvtec,visa, or NAME=FOLDER; a comma in a path is written \\,.",
            autocompletion=complete_datasets,
        ),
    ] = "demo",
    data_root: DataRoot = None,
    categories: Categories = "",
    limit: Limit = None,
    encoder: Encoder = None,
    weights: Weights = None,
    precision: Precision = "fp32",
    seed: Annotated[int, option(PROTOCOL, "N", "Draws image order, --limit, few-shot references.")] = 0,
    seeds: Annotated[
        str, option(PROTOCOL, "N,N,...", "Run, and train, what a seed varies with each; the rest once.")
    ] = "",
    order: Annotated[
        str, option(PROTOCOL, "NAME", "shuffled or dataset: for methods that compare images.")
    ] = "shuffled",
    eval_size: Annotated[str, option(PROTOCOL, "SIZE", '"input", "native" or a side in pixels.')] = "input",
    native_masks: Annotated[str, option(PROTOCOL, "RULE", "dataset: its own; gt0: any value above 0.")] = "dataset",
    mask_rule: Annotated[
        str, option(PROTOCOL, "RULE", "bilinear_half, nearest, musc_mvtec, musc_visa.")
    ] = "bilinear_half",
    device: Device = "auto",
    batch_size: Annotated[int, option(EXECUTION, "N", "Images an encoder pass.", min=1)] = 8,
    executor: Annotated[
        str, option(EXECUTION, "PLACE", "Here, or loky:N, dask://HOST:PORT, ray; --out is then shared.")
    ] = "",
    timeout_per_batch: Annotated[
        str, option(EXECUTION, "SECONDS", "A method's cell fails when one of its calls takes longer.")
    ] = "",
    fail_fast: Annotated[bool, option(EXECUTION, "", "Stop at the first failed cell.", "--fail-fast")] = False,
    tracker: Annotated[
        list[str] | None, option(EXECUTION, "NAME", "Tell tensorboard, mlflow, ... as well; may be repeated.")
    ] = None,
    cache: Cache = None,
    cache_limit: CacheLimit = None,
    dry_run: Annotated[
        bool, option(EXECUTION, "", "Show what would run and what it needs; write nothing.", "--dry-run")
    ] = False,
    plugins: Plugins = None,
    spec: Annotated[
        Path | None, option(EXECUTION, "FILE", "Options from TOML, e.g. RUN/spec.toml; those typed win.")
    ] = None,
    out: Annotated[Path, option(OUTPUT, "DIR", "Where records go; an existing run is resumed.")] = DEFAULT_RUN,
    overwrite: Overwrite = False,
    save_maps: Annotated[
        bool, option(OUTPUT, "", "Keep maps for `figure maps`: up to 131 kB an image and method.", "--save-maps")
    ] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Run methods on datasets; finished cells are skipped, so a killed run goes on where it stopped."""
    add_plugins(plugins)
    from zsadbench.running import backends, given, targets
    from zsadbench.running import spec as specs
    from zsadbench.running.request import make_request

    options: dict[str, Any] = {
        "methods": methods,
        "datasets": datasets,
        "data-root": data_root,
        "encoder": encoder,
        "weights": weights_of(weights or []),
        "checkpoint": checkpoints_of(checkpoint or []),
        "set": changes_of(set_ or []),
        "sweep": sweep_of(sweep or []),
        "seeds": seeds,
        "checkpoints": checkpoints,
        "no-train": no_train,
        "categories": categories or (),
        "device": device,
        "eval-size": eval_size,
        "native-masks": native_masks,
        "mask-rule": mask_rule,
        "order": order,
        "precision": precision,
        "seed": seed,
        "limit": limit,
        "batch-size": batch_size,
        "allow-leak": allow_leak,
        "fail-fast": fail_fast,
        "save-maps": save_maps,
        "timeout-per-batch": timeout_per_batch,
        "cache": cache,
        "cache-limit": cache_limit,
    }
    if spec is not None:
        options = from_spec(spec, options, ctx)
    request = asked = make_request(out=out, overwrite=overwrite, **specs.arguments(options))
    backend = backends.parse(executor)
    say_encoder(options["encoder"], request.encoder)
    sets = targets.sets(request)  # a wrong name is told before torch is loaded
    given.check_categories(request, sets)
    from zsadbench.api.progress import console_progress, console_reading
    from zsadbench.running import seeds as by_seed
    from zsadbench.tables import data_notes
    from zsadbench.trackers import Trackers

    trackers = Trackers(tracker or [])
    request = request.on_device()
    with console_reading(quiet) as reading:
        runs = by_seed.make_plans(request, sets, reading, may_download=not dry_run)
    with ExitStack() as stack:
        if not dry_run:
            specs.write(asked)
            stack.enter_context(trackers.following(runs, out))
            runs = [one._replace(plan=train_missing(one.plan, one.request, quiet, trackers)) for one in runs]
        findings = {finding.message: finding.wrong for one in runs for finding in one.plan.findings}
        for message, wrong in findings.items():
            say(f"{'PROBLEM' if wrong else 'Note'}: {message}")
        cells, done = sum(one.plan.cells for one in runs), sum(len(one.plan.done) for one in runs)
        say(f"{counted(cells, 'cell')} to run, {done} already done in {out} (device: {request.device})")
        if dry_run:
            from zsadbench.running import forecast
            from zsadbench.tables import forecast as forecast_tables

            found = [forecast.of(one.plan, one.request) for one in runs]
            as_data = [one.as_json() for one in found]
            text = json.dumps(as_data if request.seeds else as_data[0], indent=1)
            show(text if as_json else "\n".join(map(forecast_tables.render, found)))
            raise typer.Exit(2 if any(one.fails for one in found) else 0)
        with console_progress(quiet) as progress:
            summary = by_seed.run(runs, trackers.progress(progress), backend)
    if as_json:
        show(json.dumps({"out": str(out), "skipped": summary.skipped, **summary.counts}))
    say(_ending(summary, out))
    for note in data_notes.notes(summary.done):
        say(f"Note: {note}")
    for message, wrong in findings.items():
        if wrong:  # once more: by now the first time has scrolled away
            say(f"PROBLEM: {message}")
    raise typer.Exit(1 if runs[0].plan.resolved.left_out or summary.failed else 0)


def _ending(summary: Summary, out: Path) -> str:
    parts = [f"{count} {status.replace('_', ' ')}" for status, count in sorted(summary.counts.items())]
    text = f"Finished: {', '.join([*parts, f'{summary.skipped} skipped'])}. Table: zsadbench table {out}"
    if summary.failed:
        text += f"\nThe reasons are under the table and in the records below {out}."
    return text
