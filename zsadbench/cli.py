"""The command line: options become dataclasses, results become text, errors become sentences. No logic lives here."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from zsadbench.errors import DataError, UnknownName, UsageError, ZsadError

DEFAULT_RUN = Path("runs/default")

app = typer.Typer(
    help="Benchmark zero-shot anomaly detection methods with one pipeline and exact metrics.",
    epilog="zsadbench run --methods all --datasets mvtec,visa,btad --data-root D  |  zsadbench table --published  |  "
    "zsadbench list methods",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Look at dataset folders.", no_args_is_help=True)
app.add_typer(data_app, name="data")

DataRoot = Annotated[
    Path | None, typer.Option("--data-root", envvar="ZSADBENCH_DATA", help="Folder with one folder a dataset.")
]
Plugins = Annotated[
    list[Path] | None,
    typer.Option("--plugins", help="Folder with methods/*.py or datasets/*.py of your own; may be repeated."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")]
Encoder = Annotated[str | None, typer.Option(help="Encoder SPEC for every method, e.g. open_clip:NAME/TAG.")]
Weights = Annotated[list[str] | None, typer.Option(help="SPEC=PATH of a local weights file; may be repeated.")]
Categories = Annotated[str, typer.Option(help="Only these categories, separated by commas.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Images a category, drawn stratified by defect.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]


class TableFormat(StrEnum):
    """The formats of a table."""

    md = "md"
    latex = "latex"
    csv = "csv"


class TableLevel(StrEnum):
    """What a row or column group of a table stands for."""

    dataset = "dataset"
    category = "category"


class ListKind(StrEnum):
    """What `zsadbench list` can list."""

    methods = "methods"
    datasets = "datasets"
    encoders = "encoders"


def main() -> None:
    """Run the command line; exit codes: 0 fine, 1 some cells failed, 2 wrong name, path or option, 130 interrupted."""
    try:
        app()
    except ZsadError as error:
        typer.echo(f"Error: {error}", err=True)
        sys.exit(2 if isinstance(error, UsageError | DataError) else 1)


@app.command()
def run(
    methods: Annotated[str, typer.Option(help='"all", or names like winclip,april_gan.visa.')] = "all",
    datasets: Annotated[str, typer.Option(help="Names like mvtec,visa, or NAME=FOLDER.")] = "demo",
    data_root: DataRoot = None,
    out: Annotated[Path, typer.Option(help="Where records go; an existing run is resumed.")] = DEFAULT_RUN,
    encoder: Encoder = None,
    weights: Weights = None,
    checkpoint: Annotated[
        list[str] | None, typer.Option(help="METHOD=PATH of trained weights; may be repeated.")
    ] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="METHOD.FIELD=VALUE; may be repeated.")] = None,
    categories: Categories = "",
    limit: Limit = None,
    device: Device = "auto",
    precision: Annotated[str, typer.Option(help="fp32, bf16 or fp16 encoder passes.")] = "fp32",
    batch_size: Annotated[int, typer.Option(min=1, help="Images an encoder pass.")] = 8,
    seed: Annotated[int, typer.Option(help="Draws the image order, --limit and few-shot references.")] = 0,
    eval_size: Annotated[str, typer.Option(help='"input", "native" or the side of a square in pixels.')] = "input",
    native_masks: Annotated[str, typer.Option(help="dataset: its own rule; gt0: any value above 0.")] = "dataset",
    mask_rule: Annotated[str, typer.Option(help="bilinear_half, nearest, musc_mvtec or musc_visa.")] = "bilinear_half",
    order: Annotated[
        str, typer.Option(help="shuffled or dataset: matters for methods that compare images.")
    ] = "shuffled",
    allow_leak: Annotated[bool, typer.Option(help="Run checkpoints on data they were trained on, marked.")] = False,
    fail_fast: Annotated[bool, typer.Option(help="Stop at the first failed cell.")] = False,
    plugins: Plugins = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Run methods on datasets; finished cells are skipped, so a killed run goes on where it stopped."""
    _add_plugins(plugins)
    from zsadbench import plan as planning
    from zsadbench import runner
    from zsadbench.protocol import Protocol

    names = _names(datasets, "--datasets")
    protocol = Protocol(
        eval_size=_eval_size(eval_size),
        native_masks=_choice(native_masks, "native_masks", Protocol),
        mask_rule=_choice(mask_rule, "mask_rule", Protocol),
        order=_choice(order, "order", Protocol),
        precision=_choice(precision, "precision", Protocol),
        seed=seed,
        limit=limit,
        batch_size=batch_size,
    )
    request = planning.Request(
        methods=_names(methods, "--methods"),
        datasets=names,
        out=out,
        data_root=data_root,
        encoder=_encoder(encoder, names),
        weights=_weights(weights or []),
        checkpoints={name: Path(path) for name, path in _pairs(checkpoint or [], "--checkpoint METHOD=PATH")},
        changes=_changes(set_ or []),
        categories=_names(categories, "--categories") if categories else (),
        device=_device(device),
        protocol=protocol,
        allow_leak=allow_leak,
        fail_fast=fail_fast,
    )
    from zsadbench.progress import console_progress

    plan = planning.make_plan(request)
    for note in plan.notes:
        _say(f"Note: {note}")
    _say(f"{plan.cells} cells to run, {len(plan.done)} already done in {out} (device: {request.device})")
    try:
        with console_progress(quiet) as progress:
            summary = runner.run(plan, request, progress)
    except KeyboardInterrupt:
        _say("Interrupted. Finished cells are kept; the same command goes on from there.")
        raise typer.Exit(130) from None
    if as_json:
        typer.echo(json.dumps({"out": str(out), "skipped": summary.skipped, **summary.counts}))
    _say(_ending(summary, out))
    raise typer.Exit(1 if summary.failed else 0)


@app.command()
def table(
    runs: Annotated[list[Path] | None, typer.Argument(help="Run folders; their records are shown together.")] = None,
    format_: Annotated[TableFormat, typer.Option("--format", help="md, latex or csv.")] = TableFormat.md,
    level: Annotated[
        TableLevel, typer.Option(help="dataset: one row a method; category: one row a category.")
    ] = TableLevel.dataset,
    published: Annotated[
        bool, typer.Option("--published", help="Show the papers' numbers beside the measured ones.")
    ] = False,
) -> None:
    """Print the results of one or more runs as a table."""
    from zsadbench import results, tables

    records = [record for folder in runs or [DEFAULT_RUN] for record in results.load_run(folder)]
    typer.echo(tables.render(records, format=format_.value, level=level.value, published=published).rstrip("\n"))


@app.command()
def study(
    name: Annotated[str, typer.Argument(help="A name of --list, or the path of a study file NAME.toml.")] = "",
    list_: Annotated[bool, typer.Option("--list", help="List the studies that ship.")] = False,
    datasets: Annotated[str, typer.Option(help="Other datasets than the paper's, e.g. demo.")] = "",
    data_root: DataRoot = None,
    out: Annotated[Path | None, typer.Option(help="Where records go; by default runs/studies/NAME.")] = None,
    encoder: Encoder = None,
    weights: Weights = None,
    categories: Categories = "",
    limit: Limit = None,
    device: Device = "auto",
    format_: Annotated[TableFormat, typer.Option("--format", help="md, latex or csv.")] = TableFormat.md,
    plugins: Plugins = None,
    quiet: Quiet = False,
) -> None:
    """Run a paper's ablation table and print measured beside published numbers; a killed study goes on likewise."""
    _add_plugins(plugins)
    from zsadbench import studies, study_tables

    if list_ or not name:
        typer.echo(study_tables.render_list(studies.available()))
        return
    from zsadbench.plan import Request
    from zsadbench.progress import console_progress
    from zsadbench.protocol import Protocol

    found = studies.load(name)
    names = _names(datasets, "--datasets") if datasets else ()
    request = Request(
        methods=(),
        datasets=names,
        out=out or Path("runs/studies") / found.name,
        data_root=data_root,
        encoder=_encoder(encoder, names or [row.dataset for row in found.rows]),
        weights=_weights(weights or []),
        categories=_names(categories, "--categories") if categories else (),
        device=_device(device),
        protocol=Protocol(limit=limit),
    )
    jobs = studies.make_jobs(found, request)
    _say(f"{len(jobs)} rows, {sum(job.plan.cells for job in jobs)} cells to run in {request.out} ({request.device})")
    try:
        with console_progress(quiet) as progress:
            failed = studies.run(jobs, progress)
    except KeyboardInterrupt:
        _say("Interrupted. Finished cells are kept; the same command goes on from there.")
        raise typer.Exit(130) from None
    typer.echo(study_tables.render(found, jobs, format_.value).rstrip("\n"))
    raise typer.Exit(1 if failed else 0)


@app.command("list")
def list_(
    kind: Annotated[ListKind, typer.Argument(help="methods, datasets or encoders.")] = ListKind.methods,
    plugins: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """List what is available, plugins included."""
    _add_plugins(plugins)
    from zsadbench import listing

    rows = listing.rows(kind.value)
    typer.echo(json.dumps([dataclasses.asdict(row) for row in rows], indent=1) if as_json else listing.render(rows))


@data_app.command("check")
def data_check(
    name: Annotated[str, typer.Argument(help="Dataset name, or NAME=FOLDER.")],
    data_root: DataRoot = None,
    plugins: Plugins = None,
    quiet: Quiet = False,
) -> None:
    """Compare a dataset folder with what is expected, and name the first file that is wrong."""
    _add_plugins(plugins)
    from zsadbench import datacheck, datasets
    from zsadbench.progress import console_bar

    dataset = datasets.create(name, data_root)
    with console_bar(f"checking {dataset.name}", quiet) as advance:
        report = datacheck.check(dataset, advance)
    typer.echo(datacheck.render(report))
    raise typer.Exit(0 if report.ok else 1)


def _say(text: str) -> None:
    """Everything that is not the result itself goes to standard error."""
    typer.echo(text, err=True)


def _add_plugins(folders: Sequence[Path] | None) -> None:
    from zsadbench import plugins

    for folder in folders or ():
        plugins.add_folder(folder)


def _names(text: str, option: str) -> tuple[str, ...]:
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    if not names:
        raise UsageError(f"{option} is empty; expected names separated by commas.")
    return names


def _pairs(items: Sequence[str], option: str) -> list[tuple[str, str]]:
    for item in items:
        if not all(item.partition("=")[::2]):
            raise UsageError(f"got {item!r}; expected {option}.")
    return [(item.partition("=")[0], item.partition("=")[2]) for item in items]


def _changes(items: Sequence[str]) -> dict[str, dict[str, Any]]:
    changes: dict[str, dict[str, Any]] = {}
    for target, value in _pairs(items, "--set METHOD.FIELD=VALUE"):
        method, _, field = target.rpartition(".")
        if not method:
            raise UsageError(
                f"--set {target}={value}: got no method; expected METHOD.FIELD=VALUE, e.g. winclip.temperature=0.01."
            )
        changes.setdefault(method, {})[field] = value
    return changes


def _weights(items: Sequence[str]) -> dict[str, Path]:
    """Read SPEC=PATH pairs; ZSADBENCH_WEIGHTS holds more of them, separated by the system's path separator."""
    inherited = [item for item in os.environ.get("ZSADBENCH_WEIGHTS", "").split(os.pathsep) if item]
    return {spec: Path(path).expanduser() for spec, path in _pairs([*inherited, *items], "--weights SPEC=PATH")}


def _encoder(spec: str | None, datasets: Sequence[str]) -> str | None:
    """The demo set has its own small encoder; everything else runs with each method's published one."""
    if spec is None and all(name.partition(".")[0] == "demo" for name in datasets):
        _say("encoder: demo (the demo set's own; --encoder SPEC chooses another)")
        return "demo"
    return spec


def _device(device: str) -> str:
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device != "cpu" and not device.startswith("cuda"):
        raise UsageError(f"--device {device}: expected auto, cpu, cuda or cuda:N.")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(f"--device {device}: torch finds no CUDA device here. Use --device cpu.")
    return device


def _eval_size(text: str) -> Any:
    if text in ("input", "native"):
        return text
    if text.isdigit() and int(text) > 0:
        return int(text)
    raise UsageError(f'--eval-size {text}: expected "input", "native" or a number of pixels.')


def _choice(value: str, field: str, owner: type) -> Any:
    """Check a text against the Literal type of a dataclass field."""
    import typing

    choices = typing.get_args(typing.get_type_hints(owner)[field])
    if value not in choices:
        raise UnknownName(f"--{field.replace('_', '-')}", value, choices)
    return value


def _ending(summary: Any, out: Path) -> str:
    parts = [f"{count} {status.replace('_', ' ')}" for status, count in sorted(summary.counts.items())]
    text = f"Finished: {', '.join([*parts, f'{summary.skipped} skipped'])}. Table: zsadbench table {out}"
    if summary.failed:
        text += f"\nThe reasons are under the table and in the records below {out}."
    return text
