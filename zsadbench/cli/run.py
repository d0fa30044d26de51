"""`zsadbench run`: methods on datasets. No logic lives here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zsadbench.cli.options import (
    DEFAULT_RUN,
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
    Quiet,
    Weights,
    add_plugins,
    changes_of,
    checkpoints_of,
    from_spec,
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
    methods: Annotated[str, typer.Option(help='"all", or names like winclip,april_gan.visa.')] = "all",
    datasets: Annotated[
        str, typer.Option(help="Names like mvtec,visa, or NAME=FOLDER; a comma inside a path is written \\,.")
    ] = "demo",
    data_root: DataRoot = None,
    out: Annotated[Path, typer.Option(help="Where records go; an existing run is resumed.")] = DEFAULT_RUN,
    encoder: Encoder = None,
    weights: Weights = None,
    checkpoint: Annotated[
        list[str] | None,
        typer.Option(help="METHOD=PATH of trained weights: official files, or a folder of ours; may be repeated."),
    ] = None,
    checkpoints: Checkpoints = CHECKPOINTS,
    no_train: NoTrain = False,
    set_: Annotated[list[str] | None, typer.Option("--set", help="METHOD.FIELD=VALUE; may be repeated.")] = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option(help="METHOD.FIELD=VALUE,VALUE,...: a variant of the method for each; several multiply."),
    ] = None,
    categories: Categories = "",
    limit: Limit = None,
    device: Device = "auto",
    precision: Annotated[str, typer.Option(help="fp32, bf16 or fp16 encoder passes.")] = "fp32",
    batch_size: Annotated[int, typer.Option(min=1, help="Images an encoder pass.")] = 8,
    seed: Annotated[int, typer.Option(help="Draws the image order, --limit and few-shot references.")] = 0,
    seeds: Annotated[
        str, typer.Option(help="Several, e.g. 0,1,2: what a seed varies runs, and trains, with each.")
    ] = "",
    eval_size: Annotated[str, typer.Option(help='"input", "native" or the side of a square in pixels.')] = "input",
    native_masks: Annotated[str, typer.Option(help="dataset: its own rule; gt0: any value above 0.")] = "dataset",
    mask_rule: Annotated[str, typer.Option(help="bilinear_half, nearest, musc_mvtec or musc_visa.")] = "bilinear_half",
    order: Annotated[
        str, typer.Option(help="shuffled or dataset: matters for methods that compare images.")
    ] = "shuffled",
    allow_leak: Annotated[bool, typer.Option(help="Run checkpoints on data they were trained on, marked.")] = False,
    fail_fast: Annotated[bool, typer.Option(help="Stop at the first failed cell.")] = False,
    save_maps: Annotated[
        bool, typer.Option("--save-maps", help="Keep every map for `figure maps`: at most 131 kB an image and method.")
    ] = False,
    overwrite: Overwrite = False,
    spec: Annotated[
        Path | None, typer.Option(help="TOML file with options, such as RUN/spec.toml; those given beside it win.")
    ] = None,
    executor: Annotated[
        str, typer.Option(help="Where cells run: here, or loky:N, dask://HOST:PORT or ray; results on a shared folder.")
    ] = "",
    cache: Cache = None,
    cache_limit: CacheLimit = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would run and what it needs; write and download nothing.")
    ] = False,
    plugins: Plugins = None,
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
    from zsadbench.cli.progress import console_progress, console_reading
    from zsadbench.running import seeds as by_seed
    from zsadbench.tables import data_notes

    request = request.on_device()
    with console_reading(quiet) as reading:
        runs = by_seed.make_plans(request, sets, reading, may_download=not dry_run)
    if not dry_run:
        specs.write(asked)
        runs = [one._replace(plan=train_missing(one.plan, one.request, quiet)) for one in runs]
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
        summary = by_seed.run(runs, progress, backend)
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
