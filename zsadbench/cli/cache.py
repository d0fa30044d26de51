"""`zsadbench cache`: what is kept between runs. No logic lives here."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from zsadbench.cli.options import AsJson, say, show
from zsadbench.errors import UsageError, counted
from zsadbench.support import cache

app = typer.Typer(help="What `run --cache DIR` keeps: its size, and how to remove it.", no_args_is_help=True)

Folder = Annotated[Path | None, typer.Option("--cache", help="The folder; by default what ZSADBENCH_CACHE names.")]


@app.command()
def info(folder: Folder = None, as_json: AsJson = False) -> None:
    """Show how much is kept, by what made it."""
    from zsadbench.support import store

    root = _chosen(folder)
    found = store.contents(root)
    if as_json:
        rows = [one._asdict() for one in found]
        show(json.dumps({"cache": str(root), "bytes": sum(one.size for one in found), "kept": rows}, indent=1))
        return
    from zsadbench.tables import sheet

    body = [
        [_what(one.about), one.entries, store.in_words(one.size), time.strftime("%F", time.localtime(one.used))]
        for one in found
    ]
    if body:
        show(sheet.plain(["what", "entries", "size", "last used"], body))
    say(f"{store.in_words(sum(one.size for one in found))} in {root}")


@app.command()
def clear(
    folder: Folder = None, yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask; for scripts.")] = False
) -> None:
    """Remove everything that is kept; it can all be computed again, and records need none of it."""
    from zsadbench.support import store

    root = _chosen(folder)
    found = store.contents(root)
    size = store.in_words(sum(one.size for one in found))
    told = f"{counted(sum(one.entries for one in found), 'entry', 'entries')} ({size})"
    if found and not yes:
        if not sys.stdin.isatty():
            raise UsageError(f"nobody is there to be asked whether to remove {told}; expected a terminal, or --yes.")
        typer.confirm(f"Remove {told} from {root}?", abort=True, err=True)
    store.clear(root)
    say(f"Removed {told} from {root}.")


def _chosen(folder: Path | None) -> Path:
    if folder is None and not os.environ.get(cache.VARIABLE):
        raise UsageError(f"no cache is named; expected --cache DIR, or the variable {cache.VARIABLE}.")
    return (folder or cache.folder()).expanduser()


def _what(about: dict[str, Any]) -> str:
    """Say what a shelf holds in a few words; entries whose label is gone are removed like all others in time."""
    encoder = about.get("encoder")
    kind = str(about.get("kind", "unknown"))
    if not isinstance(encoder, dict):
        return kind
    made_with = about.get("made with")
    device = made_with.get("device", "") if isinstance(made_with, dict) else ""
    return f"{kind}: {encoder.get('spec')} {encoder.get('size')} px {encoder.get('precision')} {device}".rstrip()
