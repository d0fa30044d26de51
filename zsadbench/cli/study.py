"""`zsadbench study`: a paper's ablation table, measured beside published. No logic lives here."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from zsadbench.cli.options import (
    DATA,
    OUTPUT,
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
    option,
    say,
    say_encoder,
    show,
    weights_of,
)
from zsadbench.cli.table import TableFormat
from zsadbench.cli.train import CHECKPOINTS, train_missing
from zsadbench.errors import counted


def study(
    name: Annotated[str, typer.Argument(help="A name of --list, or the path of a study file NAME.toml.")] = "",
    list_: Annotated[bool, typer.Option("--list", metavar="", help="List the studies that ship.")] = False,
    checkpoints: Checkpoints = CHECKPOINTS,
    no_train: NoTrain = False,
    datasets: Annotated[str, option(DATA, "NAMES", "Others than the paper's, e.g. demo.")] = "",
    data_root: DataRoot = None,
    categories: Categories = "",
    limit: Limit = None,
    encoder: Encoder = None,
    weights: Weights = None,
    device: Device = "auto",
    cache: Cache = None,
    cache_limit: CacheLimit = None,
    plugins: Plugins = None,
    out: Annotated[Path | None, option(OUTPUT, "DIR", "Where records go; by default runs/studies/NAME.")] = None,
    overwrite: Overwrite = False,
    format_: Annotated[TableFormat, option(OUTPUT, "FORMAT", "md, latex or csv.", "--format")] = TableFormat.md,
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
    from zsadbench.api.progress import console_progress, console_reading
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
    plan = train_missing(planned.plan, planned.request, quiet)
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
