"""`zsadbench data`: list, check, index and fetch datasets. No logic lives here."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from zsadbench.cli import listing
from zsadbench.cli.options import AsJson, DataRoot, Plugins, Quiet, add_plugins, say, show
from zsadbench.errors import UsageError

app = typer.Typer(help="List, check, index and fetch datasets.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Dataset name, or NAME=FOLDER.")]


@app.command("list")
def list_(plugins: Plugins = None, as_json: AsJson = False) -> None:
    """List every dataset: domain, categories, expected test images, levels, licence, and whether fetch can get it."""
    add_plugins(plugins)
    listing.print_rows("datasets", as_json)


@app.command()
def check(
    name: Name, data_root: DataRoot = None, plugins: Plugins = None, quiet: Quiet = False, as_json: AsJson = False
) -> None:
    """Compare a dataset folder with what is expected, and name the first file that is wrong; exit code 1 if any is."""
    add_plugins(plugins)
    from zsadbench.api.progress import console_bar
    from zsadbench.data import check as datacheck

    with console_bar(f"checking {name}", quiet) as advance:
        report = datacheck.check_named(name, data_root, advance)
    show(json.dumps(datacheck.facts(report), indent=1) if as_json else datacheck.render(report))
    raise typer.Exit(0 if report.ok else 1)


@app.command()
def index(
    name: Name,
    out: Annotated[Path, typer.Option("--out", help="A new JSONL file, outside the dataset.")],
    data_root: DataRoot = None,
    plugins: Plugins = None,
) -> None:
    """Write the sample list as JSONL: id, image, mask, label, category, defect, split and the hash of the list."""
    add_plugins(plugins)
    from zsadbench import datasets
    from zsadbench.data import index_writer

    dataset = datasets.create(name, data_root)
    count = index_writer.write(dataset, out)
    say(f"{out}: {count} samples of {dataset.name}; paths are relative to {dataset.root}.")


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="Dataset name.")],
    data_root: DataRoot = None,
    accept_licence: Annotated[bool, typer.Option("--accept-licence", help="Do not ask; for scripts.")] = False,
    plugins: Plugins = None,
    quiet: Quiet = False,
) -> None:
    """Download a dataset where that is public and allowed; otherwise say where to apply for it (exit code 2)."""
    add_plugins(plugins)
    from zsadbench import datasets
    from zsadbench.api.progress import console_files
    from zsadbench.data import fetch as fetching

    plan = fetching.make_plan(datasets.registered_name(name), data_root)
    say(plan.terms)
    if not accept_licence:
        if not sys.stdin.isatty():
            raise UsageError("nobody is there to accept the licence; expected a terminal, or --accept-licence.")
        typer.confirm("Do you accept the licence?", abort=True, err=True)
    with console_files(quiet) as progress:
        folder = fetching.fetch(plan, progress)
    datasets.create(name, data_root)  # raises DataError if what was unpacked has another layout
    say(f"{folder} is complete. Check it: zsadbench data check {name} --data-root {data_root}")
