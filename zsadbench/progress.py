"""Progress bars on standard error; silent where nobody watches."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from zsadbench.results import Record


class ConsoleProgress:
    """Draws the progress of a run (contract: zsadbench.runner.Progress) and prints a line a failed cell."""

    def __init__(self, bars: Progress) -> None:
        """Draw on the given bars."""
        self._bars = bars
        self._task: TaskID | None = None
        self._said: set[str] = set()

    def begin(self, cells: int, images: int) -> None:
        """Start the bar: `images` counts every (method, image) pair."""
        self._task = self._bars.add_task(f"{cells} cells", total=images)

    def step(self, label: str, images: int) -> None:
        """Advance by some predictions on `label`."""
        if self._task is not None:
            self._bars.update(self._task, advance=images, description=label)

    def finish_cell(self, record: Record) -> None:
        """Say at once why a cell has no numbers; a reason that many categories share is said once."""
        if record.status != "done":
            reason = (record.error or "").strip().splitlines()[-1]
            self._say(f"{record.dataset} {record.method}: {record.status.replace('_', ' ')}: {reason}")

    def _say(self, sentence: str) -> None:
        if sentence not in self._said:
            self._said.add(sentence)
            self._bars.console.print(sentence, highlight=False, markup=False, soft_wrap=True)

    def show_warning(self, message: Warning | str) -> None:
        """Print a warning as a sentence, once (takes the place of warnings.showwarning)."""
        self._say(f"Note: {message}")


@contextmanager
def console_progress(quiet: bool) -> Iterator[ConsoleProgress]:
    """Show the bars of a run while the block runs; with `quiet` or without a terminal only notes and failures."""
    with _bars(quiet) as bars, warnings.catch_warnings():
        progress = ConsoleProgress(bars)
        warnings.showwarning = lambda message, *_: progress.show_warning(message)
        yield progress


@contextmanager
def console_bar(label: str, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Show one bar; yields a function (done, total) to call while working."""
    with _bars(quiet) as bars:
        task = bars.add_task(label, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


def _bars(quiet: bool) -> Progress:
    console = Console(file=sys.stderr)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal)
