"""`zsadbench check`: the regression gate. No logic lives here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from zsadbench.cli.options import AsJson, say, show


def check(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    baseline: Annotated[Path, typer.Option(help="JSON file of an earlier --update.")],
    tolerance: Annotated[
        list[str] | None,
        typer.Option(help="Points that a metric may fall: 0.5 for all, pixel.ap=1 for one; may be repeated."),
    ] = None,
    update: Annotated[bool, typer.Option("--update", help="Write the run's numbers as the new baseline.")] = False,
    as_json: AsJson = False,
) -> None:
    """Compare a run with its baseline; exit code 1 when a metric fell beyond its tolerance or a cell is missing."""
    from zsadbench.analysis import gate
    from zsadbench.records import results
    from zsadbench.tables.gate import render

    records, allowed = results.load_run(run), gate.parse_tolerance(tolerance or [])
    if update:
        old = gate.load(baseline).tolerance if baseline.exists() else {gate.EVERY: gate.TOLERANCE}
        gate.save(gate.make(records, {**old, **allowed}), baseline)
        say(f"Baseline: {baseline}, {len(records)} cells.")
        return
    expected = gate.load(baseline)
    changes = gate.compare(records, expected, allowed)
    if as_json:
        show(json.dumps([change._asdict() for change in changes], indent=1))
    else:
        show(render(changes, expected))
        for note in gate.notes(records, expected):
            say(f"Note: {note}")
    raise typer.Exit(1 if any(change.fails for change in changes) else 0)
