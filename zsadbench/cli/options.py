"""Options and output that the commands share."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from zsadbench.errors import UsageError
from zsadbench.support.texts import printable

DEFAULT_RUN = Path("runs/default")

METHODS, DATA, ENCODER = "Methods", "Data", "Encoder"  # the panels of --help
PROTOCOL, EXECUTION, OUTPUT = "Protocol", "Execution", "Output"


def option(panel: str, metavar: str, told: str, *names: str, **more: Any) -> Any:
    """Return an option of a command, as typer takes it. metavar: what its value is called, "" for a switch."""
    return typer.Option(*names, rich_help_panel=panel, metavar=metavar, help=told, **more)


def complete_methods(incomplete: str) -> list[str]:
    """Return what a list of method names that a shell completes may go on to."""
    from zsadbench.support import plugins

    return _completed(incomplete, ["all", *plugins.names("zsadbench.methods")])


def complete_datasets(incomplete: str) -> list[str]:
    """Return what a list of dataset names that a shell completes may go on to."""
    from zsadbench.support import plugins

    return _completed(incomplete, plugins.names("zsadbench.datasets"))


def _completed(incomplete: str, names: Sequence[str]) -> list[str]:
    before, comma, begun = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in names if name.startswith(begun)]


DataRoot = Annotated[
    Path | None, option(DATA, "DIR", "Folder with one folder a dataset.", "--data-root", envvar="ZSADBENCH_DATA")
]
Plugins = Annotated[
    list[Path] | None,
    option(
        EXECUTION, "DIR", "Folder with your methods/ or datasets/, repeatable; also ZSADBENCH_PLUGINS.", "--plugins"
    ),
]
AsJson = Annotated[bool, option(OUTPUT, "", "Print JSON for scripts.", "--json")]
Quiet = Annotated[bool, option(OUTPUT, "", "No progress: neither bars nor a line a cell.", "--quiet", "-q")]
Encoder = Annotated[str | None, option(ENCODER, "SPEC", "For every method, e.g. open_clip:NAME/TAG.")]
Weights = Annotated[
    list[str] | None, option(ENCODER, "SPEC=PATH", "A weights file, or a folder of them; may be repeated.")
]
Precision = Annotated[str, option(ENCODER, "NAME", "fp32, bf16 or fp16 passes.")]
Checkpoints = Annotated[Path, option(METHODS, "DIR", "Where our own checkpoints are, or are trained if missing.")]
NoTrain = Annotated[bool, option(METHODS, "", "Train nothing that is missing there.", "--no-train")]
Set = Annotated[list[str] | None, option(METHODS, "M.FIELD=VALUE", "Change an option; may be repeated.", "--set")]
Categories = Annotated[str, option(DATA, "NAMES", "Only these, separated by commas.")]
Overwrite = Annotated[
    bool, option(OUTPUT, "", "Replace finished cells of other options or another protocol.", "--overwrite")
]
Limit = Annotated[int | None, option(DATA, "N", "Images a category, drawn stratified by defect.", min=1)]
Cache = Annotated[
    Path | None,
    option(EXECUTION, "DIR", "Keep images and encoder passes for later runs; also ZSADBENCH_CACHE."),
]
CacheLimit = Annotated[
    str | None,
    option(EXECUTION, "SIZE", "What may be kept; what was not used longest leaves first.  [default: 50GB]"),
]
Device = Annotated[str, option(EXECUTION, "NAME", "auto, cpu, cuda or cuda:N.")]


def say(text: str) -> None:
    """Everything that is not the result itself goes to standard error."""
    typer.echo(printable(text), err=True)


_results: list[TextIO] = []  # where they go while the command line runs


@contextmanager
def results_apart() -> Iterator[None]:
    """Let `show` write to what is standard output now, whatever becomes of that inside the block."""
    _results.append(sys.stdout)
    try:
        with redirect_stdout(sys.stdout):
            yield
    finally:
        _results.pop()


def show(text: str) -> None:
    """Print a result: names in it may come from files of others."""
    typer.echo(printable(text), file=_results[-1] if _results else None)


def add_plugins(folders: Sequence[Path] | None) -> None:
    """Make the user's plugin folders known. Whatever else prints from now on does so to standard error."""
    from zsadbench.support import plugins

    if _results:
        sys.stdout = sys.stderr
    for folder in folders or ():
        plugins.add_folder(folder)


def pairs(items: Sequence[str], option: str) -> list[tuple[str, str]]:
    """Split NAME=VALUE texts. Raises UsageError."""
    for item in items:
        if not all(item.partition("=")[::2]):
            raise UsageError(f"got {item!r}; expected {option}.")
    return [(item.partition("=")[0], item.partition("=")[2]) for item in items]


def once(items: Sequence[str], option: str) -> dict[str, str]:
    """Read NAME=VALUE texts of an option that takes each name once. Raises UsageError."""
    found: dict[str, str] = {}
    for name, value in pairs(items, option):
        if name in found:
            told = f"{option.partition(' ')[0]} {name} is given twice, as {found[name]} and as {value}"
            raise UsageError(f"{told}; give it once.")
        found[name] = value
    return found


def checkpoints_of(items: Sequence[str]) -> dict[str, list[str]]:
    """Read METHOD=PATH texts: method -> the files or folder of its trained weights. Raises UsageError."""
    found: dict[str, list[str]] = {}
    for method, path in pairs(items, "--checkpoint METHOD=PATH"):
        found.setdefault(method, []).append(path)
    return found


def changes_of(items: Sequence[str]) -> dict[str, str]:
    """Read METHOD.FIELD=VALUE texts: METHOD.FIELD -> value. Raises UsageError."""
    return once(items, "--set METHOD.FIELD=VALUE")


def sweep_of(items: Sequence[str]) -> dict[str, str]:
    """Read METHOD.FIELD=VALUES texts: METHOD.FIELD -> values. Raises UsageError."""
    return once(items, "--sweep METHOD.FIELD=VALUES")


def weights_of(items: Sequence[str]) -> dict[str, str | Path]:
    """Read SPEC=PATH texts, and folders of weight files. Raises UsageError."""
    from zsadbench import encoders

    folders = [item for item in items if Path(item).expanduser().is_dir()]
    found: dict[str, str | Path] = {}
    for folder in folders:
        found |= encoders.in_folder(folder)
    return found | once([item for item in items if item not in folders], "--weights SPEC=PATH, or a folder of weights")


def from_spec(path: Path, options: dict[str, Any], ctx: typer.Context) -> dict[str, Any]:
    """Return the options of a spec file, beside those that were typed, which win; that is told. Raises UsageError."""
    from zsadbench.running import spec as specs

    read = specs.read(path)
    sources = {name.rstrip("_").replace("_", "-"): ctx.get_parameter_source(name) for name in ctx.params}
    typed = {name: value for name, value in options.items() if getattr(sources[name], "name", "") == "COMMANDLINE"}
    for told in specs.differences(read, typed):
        say(f"Beside {path}: {told}")
    add_plugins([Path(folder).expanduser() for folder in read.get("plugins", [])])
    return {**options, **specs.beside(read, typed)}


def say_encoder(given: str | None, chosen: str | None) -> None:
    """Say so where the demo set's own encoder was chosen, as nobody asked for it."""
    if chosen and not given:
        say(f"encoder: {chosen} (the demo set's own; --encoder SPEC chooses another)")
