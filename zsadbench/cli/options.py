"""Options and output that the commands share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from zsadbench.errors import UnknownName, UsageError
from zsadbench.support import variants
from zsadbench.support.texts import printable

DEFAULT_RUN = Path("runs/default")

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
Checkpoints = Annotated[
    Path, typer.Option(help="Folder where our own checkpoints are looked for, and trained if they are missing.")
]
NoTrain = Annotated[bool, typer.Option("--no-train", help="Train nothing that is missing there.")]
Categories = Annotated[str, typer.Option(help="Only these categories, separated by commas.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace finished cells of other options or another protocol.")
]
Limit = Annotated[int | None, typer.Option(min=1, help="Images a category, drawn stratified by defect.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]


def say(text: str) -> None:
    """Everything that is not the result itself goes to standard error."""
    typer.echo(printable(text), err=True)


def show(text: str) -> None:
    """Print a result: names in it may come from files of others."""
    typer.echo(printable(text))


def add_plugins(folders: Sequence[Path] | None) -> None:
    """Make the user's plugin folders known."""
    from zsadbench.support import plugins

    for folder in folders or ():
        plugins.add_folder(folder)


def names_of(text: str, option: str) -> tuple[str, ...]:
    r"""Split names separated by commas; a comma in brackets or written "\," is part of a name. Raises UsageError."""
    names = tuple(part for part in variants.parts(text) if part)
    if not names:
        raise UsageError(f"{option} is empty; expected names separated by commas.")
    return names


def pairs(items: Sequence[str], option: str) -> list[tuple[str, str]]:
    """Split NAME=VALUE texts. Raises UsageError."""
    for item in items:
        if not all(item.partition("=")[::2]):
            raise UsageError(f"got {item!r}; expected {option}.")
    return [(item.partition("=")[0], item.partition("=")[2]) for item in items]


def checkpoints_of(items: Sequence[str]) -> dict[str, tuple[Path, ...]]:
    """Read METHOD=PATH texts: method -> the files or folder of its trained weights. Raises UsageError."""
    found: dict[str, tuple[Path, ...]] = {}
    for method, path in pairs(items, "--checkpoint METHOD=PATH"):
        found[method] = (*found.get(method, ()), Path(path).expanduser())
    return found


def changes_of(items: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Read METHOD.FIELD=VALUE texts: method -> field -> value. Raises UsageError."""
    changes: dict[str, dict[str, Any]] = {}
    for target, value in pairs(items, "--set METHOD.FIELD=VALUE"):
        method, _, field = target.rpartition(".")
        if not method:
            raise UsageError(
                f"--set {target}={value}: got no method; expected METHOD.FIELD=VALUE, e.g. winclip.temperature=0.01."
            )
        own = changes.setdefault(method, {})
        if field in own:
            raise UsageError(f"--set {target} is given twice, as {own[field]} and as {value}; give it once.")
        own[field] = value
    return changes


def sweep_of(items: Sequence[str]) -> dict[str, dict[str, Sequence[Any]]]:
    """Read METHOD.FIELD=VALUES texts: method -> field -> values. Raises UsageError."""
    from zsadbench.running.request import swept

    given: dict[str, str] = {}
    for target, values in pairs(items, "--sweep METHOD.FIELD=VALUES"):
        if target in given:
            raise UsageError(f"--sweep {target} is given twice; name all values in one.")
        given[target] = values
    return swept(given)


def weights_of(items: Sequence[str]) -> dict[str, Path]:
    """Read SPEC=PATH pairs, beside those of the variable ZSADBENCH_WEIGHTS. Raises UsageError."""
    from zsadbench import encoders

    given: dict[str, Path] = {}
    for spec, path in pairs(items, "--weights SPEC=PATH"):
        if spec in given:
            raise UsageError(f"--weights {spec} is given twice, as {given[spec]} and as {path}; give it once.")
        given[spec] = Path(path).expanduser()
    return encoders.inherited() | given


def demo_encoder(spec: str | None, datasets: Sequence[str]) -> str | None:
    """The demo set has its own small encoder; everything else runs with each method's published one."""
    if spec is None and all(re.split("[.=]", name)[0] == "demo" for name in datasets):
        say("encoder: demo (the demo set's own; --encoder SPEC chooses another)")
        return "demo"
    return spec


def checked_device(device: str) -> str:
    """Resolve "auto" and refuse a device that is not there. Raises UsageError."""
    from zsadbench.support import meters

    return meters.checked_device(device)


def choice(value: str, field: str, owner: type) -> Any:
    """Check a text against the Literal type of a dataclass field."""
    import typing

    choices = typing.get_args(typing.get_type_hints(owner)[field])
    if value not in choices:
        raise UnknownName(f"--{field.replace('_', '-')}", value, choices)
    return value
