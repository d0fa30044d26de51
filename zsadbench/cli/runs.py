"""`zsadbench runs`: which runs lie in a folder. No logic lives here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from zsadbench.cli.options import AsJson, show


def runs(
    folder: Annotated[Path, typer.Argument(help="A folder of runs, or a run.")] = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """List the runs in a folder: when, what, how far, and on which device."""
    from zsadbench.analysis.run_list import list_runs
    from zsadbench.tables import sheet

    found = list_runs(folder)
    if as_json:
        show(json.dumps([one._asdict() for one in found], indent=1))
        return
    body = [
        [one.folder, one.last[:16].replace("T", " "), f"{', '.join(one.methods)} x {', '.join(one.datasets)}",
         f"{one.done} done, {one.failed} failed of {one.planned}", one.device]
        for one in found
    ]  # fmt: skip
    show(sheet.plain(["run", "last", "what", "how far", "device"], body))
