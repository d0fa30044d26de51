"""`zsadbench report`: a run as one HTML page. No logic lives here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zsadbench.cli.options import DataRoot, Plugins, add_plugins, show


def report(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    out: Annotated[Path, typer.Option("--out", help="Folder that gets index.html.")],
    compare: Annotated[Path | None, typer.Option("--compare", help="Another run folder, for differences.")] = None,
    no_intervals: Annotated[
        bool, typer.Option("--no-intervals", help="Leave bootstrap intervals out: they take about 0.5 s a cell.")
    ] = False,
    dataset: Annotated[
        list[str] | None, typer.Option(help="NAME=FOLDER of images that have moved; may be repeated.")
    ] = None,
    data_root: DataRoot = None,
    plugins: Plugins = None,
) -> None:
    """Write a run as one HTML page that needs no network: tables, intervals, figures, failures, provenance."""
    add_plugins(plugins)
    from zsadbench.report import content, page

    page.check_folder(out)
    show(str(page.write(content.collect(run, compare, data_root, not no_intervals, dataset or ()), out)))
