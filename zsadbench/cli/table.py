"""`zsadbench table`: the results of runs, with intervals, tests, seeds or costs. No logic lives here."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from zsadbench.cli.options import DEFAULT_RUN, show
from zsadbench.errors import UsageError


class TableFormat(StrEnum):
    """The formats of a table."""

    md = "md"
    latex = "latex"
    csv = "csv"


class TableLevel(StrEnum):
    """What a row or column group of a table stands for."""

    dataset = "dataset"
    category = "category"


def table(
    runs: Annotated[list[Path] | None, typer.Argument(help="Run folders; their records are shown together.")] = None,
    format_: Annotated[TableFormat, typer.Option("--format", help="md, latex or csv.")] = TableFormat.md,
    level: Annotated[
        TableLevel, typer.Option(help="dataset: one row a method; category: one row a category.")
    ] = TableLevel.dataset,
    published: Annotated[
        bool, typer.Option("--published", help="Show the papers' numbers beside the measured ones.")
    ] = False,
    ci: Annotated[bool, typer.Option("--ci", help="Show 95 % bootstrap intervals, from resampled images.")] = False,
    seeds: Annotated[
        bool,
        typer.Option("--seeds", help="Mean and deviation of runs that differ in their seed alone."),
    ] = False,
    significance: Annotated[
        bool, typer.Option("--significance", help="Which methods differ: average ranks and paired tests.")
    ] = False,
    efficiency: Annotated[
        bool, typer.Option("--efficiency", help="What methods cost (`zsadbench profile`) beside quality.")
    ] = False,
) -> None:
    """Print the results of one or more runs as a table."""
    from zsadbench.analysis import run_list
    from zsadbench.records import results
    from zsadbench.tables import quality

    kinds = {"--ci": ci, "--seeds": seeds, "--significance": significance, "--efficiency": efficiency}
    if sum(kinds.values()) > 1:
        asked = " and ".join(name for name, wanted in kinds.items() if wanted)
        raise UsageError(f"{asked} are different tables; print one at a time.")
    folders = runs or [DEFAULT_RUN]
    if not efficiency:  # profiles may lie where no run does
        folders = run_list.below(folders)
    if not (ci or significance or efficiency):
        named, folders = folders, [own for folder in folders for own in results.folders(folder)]
        seeds = seeds or len(folders) > len(named)
    records = [record for folder in folders for record in results.load_run(folder)]
    if efficiency:
        from zsadbench.tables import efficiency as efficiency_table

        show(efficiency_table.render_runs(folders, records, format_.value, published).rstrip("\n"))
        return
    if significance:
        from zsadbench.analysis import intervals
        from zsadbench.tables import significance as significance_tables

        text = significance_tables.render(records, intervals.Resamples(folders), format_.value)
        show(text.rstrip("\n"))
        return
    resamples = None
    if ci:
        from zsadbench.analysis.intervals import Resamples

        resamples = Resamples(folders)
    text = quality.render(records, format_.value, level.value, published, resamples=resamples, seeds=seeds)
    show(text.rstrip("\n"))
