"""The command line: options become dataclasses, results become text, errors become sentences. No logic lives here."""

from __future__ import annotations

import dataclasses
import json
import signal
import sys
import warnings
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from zsadbench import __version__
from zsadbench.cli import cache as cache_commands
from zsadbench.cli import check, data, figure, profile, report, table, train
from zsadbench.cli import show as show_command
from zsadbench.cli import weights as weights_commands
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
    results_apart,
    say,
    say_encoder,
    show,
    sweep_of,
    weights_of,
)
from zsadbench.cli.table import TableFormat
from zsadbench.errors import DataError, UsageError, ZsadError, counted
from zsadbench.support import process, traces
from zsadbench.support.guard import Crash


class Commands(TyperGroup):
    """All commands: what ends one of them from inside, other than by its exit code, is told in a sentence."""

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            number = error.number if isinstance(error, process.Interrupted) else signal.SIGINT
            say(process.sentence(number))
            raise typer.Exit(process.exit_code(number)) from None
        except (SystemExit, GeneratorExit) as error:  # of a plugin: it must not end the command as if all was well
            if isinstance(error.__context__, BrokenPipeError):  # or rich's, when nobody reads on: `--help | head`
                raise
            raise Crash(traces.report(error)) from error


app = typer.Typer(
    cls=Commands,
    help="Benchmark zero-shot anomaly detection methods with one pipeline and exact metrics.",
    epilog="zsadbench run --methods all --datasets mvtec,visa,btad --data-root D  |  zsadbench table --published  |  "
    "zsadbench list methods",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(data.app, name="data")
app.add_typer(cache_commands.app, name="cache")
app.add_typer(weights_commands.app, name="weights")
app.add_typer(figure.app, name="figure")
app.command("train")(train.train)
app.command("table")(table.table)
app.command("report")(report.report)
app.command("profile")(profile.profile)
app.command("check")(check.check)
app.command("show")(show_command.show)


class ListKind(StrEnum):
    """What `zsadbench list` can list."""

    methods = "methods"
    datasets = "datasets"
    encoders = "encoders"


def main() -> None:
    """Run the command line; exit codes: 0 fine, 1 some cells failed, 2 wrong name, path or option, 128 + a signal."""
    told = lru_cache(maxsize=None)(say)  # each warning once
    warnings.showwarning = lambda message, *_: told(f"Note: {message}")
    try:
        with results_apart():
            app(prog_name="zsadbench")  # the name that completion asks for, whatever started this
    except ZsadError as error:
        say(f"Error: {error}")
        sys.exit(2 if isinstance(error, UsageError | DataError) else 1)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"zsadbench {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """What can be said without a command."""


@app.command()
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
    checkpoints: Checkpoints = train.CHECKPOINTS,
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
        runs = [one._replace(plan=train.train_missing(one.plan, one.request, quiet)) for one in runs]
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


@app.command()
def study(
    name: Annotated[str, typer.Argument(help="A name of --list, or the path of a study file NAME.toml.")] = "",
    list_: Annotated[bool, typer.Option("--list", help="List the studies that ship.")] = False,
    datasets: Annotated[str, typer.Option(help="Other datasets than the paper's, e.g. demo.")] = "",
    data_root: DataRoot = None,
    out: Annotated[Path | None, typer.Option(help="Where records go; by default runs/studies/NAME.")] = None,
    encoder: Encoder = None,
    weights: Weights = None,
    checkpoints: Checkpoints = train.CHECKPOINTS,
    no_train: NoTrain = False,
    categories: Categories = "",
    limit: Limit = None,
    overwrite: Overwrite = False,
    device: Device = "auto",
    format_: Annotated[TableFormat, typer.Option("--format", help="md, latex or csv.")] = TableFormat.md,
    cache: Cache = None,
    cache_limit: CacheLimit = None,
    plugins: Plugins = None,
    quiet: Quiet = False,
) -> None:
    """Run a paper's ablation table and print measured beside published numbers; a killed study goes on likewise.

    Trained rows find their checkpoints, or train them first, as in `run`.
    """
    add_plugins(plugins)
    from zsadbench.running import studies
    from zsadbench.tables import study as study_tables

    if list_ or not name:
        show(study_tables.render_list(studies.available()))
        return
    from zsadbench.cli.progress import console_progress, console_reading
    from zsadbench.running.request import make_request

    found = studies.find(name)
    request = make_request(
        datasets=datasets or [row.dataset for row in found.rows],
        out=out or Path("runs/studies") / found.name,
        data_root=data_root,
        encoder=encoder,
        weights=weights_of(weights or []),
        checkpoint_folder=checkpoints,
        train=not no_train,
        categories=categories or (),
        device=device,
        protocol={"limit": limit},
        overwrite=overwrite,
        cache=cache,
        cache_limit=cache_limit,
    )
    studies.check(found)
    request = request.on_device()
    say_encoder(encoder, request.encoder)
    from zsadbench.running import runner

    with console_reading(quiet) as reading:
        planned = studies.make_run(found, request, reading)
    plan = train.train_missing(planned.plan, planned.request, quiet)
    for finding in plan.findings:
        say(f"Note: {finding.message}")
    if old := studies.earlier(found, request.out):
        say(
            f"Note: {request.out} holds rows of an earlier version in folders of their own, such as {old[0]}. They are "
            f"left alone, and the study is measured anew; `zsadbench table {request.out / old[0]}` shows one."
        )
    rows, cells = counted(len(planned.jobs), "row"), counted(plan.cells, "cell")
    say(f"{rows}, {cells} to run in {request.out} ({request.device})")
    with console_progress(quiet) as progress:
        summary = runner.run(plan, planned.request, progress)
    show(study_tables.render(dataclasses.replace(planned, plan=plan), format_.value).rstrip("\n"))
    raise typer.Exit(1 if summary.failed else 0)


@app.command("list")
def list_(
    kind: Annotated[ListKind, typer.Argument(help="methods, datasets or encoders.")] = ListKind.methods,
    plugins: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """List what is available, plugins included."""
    add_plugins(plugins)
    from zsadbench.cli import listing

    rows = listing.rows(kind.value)
    show(json.dumps([dataclasses.asdict(row) for row in rows], indent=1) if as_json else listing.render(rows))


def _ending(summary: Any, out: Path) -> str:
    parts = [f"{count} {status.replace('_', ' ')}" for status, count in sorted(summary.counts.items())]
    text = f"Finished: {', '.join([*parts, f'{summary.skipped} skipped'])}. Table: zsadbench table {out}"
    if summary.failed:
        text += f"\nThe reasons are under the table and in the records below {out}."
    return text
