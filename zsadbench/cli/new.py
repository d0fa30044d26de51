"""`zsadbench new`: files to start a plugin from. No logic lives here."""

from __future__ import annotations

import shlex
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from zsadbench.cli.options import say, show
from zsadbench.errors import UsageError


class Kind(StrEnum):
    """What a plugin can be."""

    method = "method"
    dataset = "dataset"


def new(
    kind: Annotated[Kind, typer.Argument(help="method or dataset.")],
    name: Annotated[str, typer.Argument(help="What it is called on the command line, such as my_method.")],
    trained: Annotated[
        bool, typer.Option("--trained", metavar="", help="A method with weights that are trained.")
    ] = False,
    plugins: Annotated[
        Path, typer.Option("--plugins", metavar="DIR", help="Folder that gets methods/ or datasets/, and tests/.")
    ] = Path(),
) -> None:
    """Write a method or dataset to start from, and its test: it passes `check-plugin` and runs as it is."""
    if trained and kind is Kind.dataset:
        raise UsageError("--trained is for methods; a dataset has nothing that is trained.")
    from zsadbench.testing import scaffold

    paths = scaffold.write(kind.value, name, plugins, time.localtime().tm_year, trained)
    for path in paths:
        show(str(path))
    guide = "a-dataset" if kind is Kind.dataset else "a-trained-method" if trained else "a-method"
    folder = f"--plugins {shlex.quote(str(plugins))}"
    data = f" --data-root {shlex.quote(str(plugins / 'data'))}" if kind is Kind.dataset else ""
    chosen = f"--methods winclip --encoder demo --datasets {name}{data}" if data else f"--methods {name}"
    say(f"Go on in {paths[0]} (docs/guides/add-{guide}.md), then check, run and compare:")
    say(f"  zsadbench check-plugin {name} {folder}{data}")
    say(f"  zsadbench run {chosen} {folder} --out {shlex.quote(f'runs/{name}')}")
    say(f"  zsadbench table {shlex.quote(f'runs/{name}')}")
