"""The command line: options become dataclasses, results become text, errors become sentences. No logic lives here."""

from __future__ import annotations

import signal
import sys
import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from zsadbench import __version__
from zsadbench.cli import (
    cache,
    check,
    check_plugin,
    data,
    figure,
    listing,
    new,
    profile,
    report,
    run,
    runs,
    show,
    study,
    table,
    train,
    weights,
)
from zsadbench.cli.options import results_apart, say
from zsadbench.errors import DataError, UsageError, ZsadError
from zsadbench.support import process, traces
from zsadbench.support.guard import Crash


class Commands(TyperGroup):
    """All commands, in the order of use; what ends one from inside, other than its exit code, is told in a sentence."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the commands in the order of COMMANDS."""
        return sorted(super().list_commands(ctx), key=list(COMMANDS).index)

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            number = error.number if isinstance(error, process.Interrupted) else signal.SIGINT
            say(process.sentence(number))
            raise typer.Exit(process.exit_code(number)) from None
        except (SystemExit, GeneratorExit) as error:  # of a plugin: it must not end the command as if all was well
            if isinstance(error.__context__, BrokenPipeError):  # or rich's, when nobody reads on: `--help | head`
                raise
            raise Crash(traces.report(error)) from error


app = typer.Typer(
    cls=Commands,
    help="Benchmark zero-shot anomaly detection methods with one pipeline and exact metrics.",
    epilog="zsadbench run --methods all --datasets mvtec,visa,btad --data-root D  |  zsadbench table --published  |  "
    "zsadbench list methods",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
COMMANDS: dict[str, typer.Typer | Callable[..., None]] = {  # in the order of use, as --help lists them
    "run": run.run,
    "table": table.table,
    "runs": runs.runs,
    "report": report.report,
    "figure": figure.app,
    "show": show.show,
    "list": listing.list_,
    "data": data.app,
    "weights": weights.app,
    "train": train.train,
    "study": study.study,
    "profile": profile.profile,
    "check": check.check,
    "new": new.new,
    "check-plugin": check_plugin.check_plugin,
    "cache": cache.app,
}
for name, command in COMMANDS.items():
    if isinstance(command, typer.Typer):
        app.add_typer(command, name=name)
    else:
        app.command(name)(command)


def main() -> None:
    """Run the command line; exit codes: 0 fine, 1 some cells failed, 2 wrong name, path or option, 128 + a signal."""
    told = lru_cache(maxsize=None)(say)  # each warning once
    warnings.showwarning = lambda message, *_: told(f"Note: {message}")
    try:
        with results_apart():
            app(prog_name="zsadbench")  # the name that completion asks for, whatever started this
    except ZsadError as error:
        say(f"Error: {error}")
        sys.exit(2 if isinstance(error, UsageError | DataError) else 1)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"zsadbench {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """What can be said without a command."""
