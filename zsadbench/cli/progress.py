"""Progress bars on standard error; silent where nobody watches."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

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

from zsadbench.errors import counted
from zsadbench.records.results import Record
from zsadbench.support import process
from zsadbench.support.texts import printable

if TYPE_CHECKING:
    from zsadbench.training.checkpoints import Epoch

FIRST_STEPS = 10  # of a training, from which its time is estimated
LINES = 20  # at most that a training prints of its epochs


class ConsoleProgress:
    """Draws the progress of a run (contract: zsadbench.running.progress.Progress) and prints a line a failed cell."""

    def __init__(self, bars: Progress) -> None:
        """Draw on the given bars."""
        self._bars = bars
        self._task: TaskID | None = None
        self._said: set[str] = set()

    def begin(self, cells: int, images: int) -> None:
        """Start the bar: `images` counts every (method, image) pair."""
        self._task = self._bars.add_task(counted(cells, "cell"), total=images)

    def step(self, label: str, images: int) -> None:
        """Advance by some predictions on `label`."""
        if self._task is not None:
            self._bars.update(self._task, advance=images, description=label)

    def finish_cell(self, record: Record) -> None:
        """Say at once why a cell has no numbers; a reason that many categories share is said once."""
        if record.status != "done":
            self._say(f"{record.dataset} {record.method}: {record.status.replace('_', ' ')}: {record.reason}")

    def _say(self, sentence: str) -> None:
        if sentence not in self._said:
            self._said.add(sentence)
            self._bars.console.print(printable(sentence), highlight=False, markup=False, soft_wrap=True)

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


class ConsoleTraining:
    """Draws the progress of a training (contract: zsadbench.training.Progress) and prints a line an epoch."""

    def __init__(self, bars: Progress, quiet: bool) -> None:
        """Draw on the given bars; with `quiet` no lines."""
        self._bars, self._quiet = bars, quiet
        self._label, self._task = "", TaskID(0)
        self._steps, self._done, self._began, self._told = 0, 0, 0.0, 0

    def begin(self, label: str, steps: int, done: int) -> None:
        """Start a bar at `done` of `steps` steps."""
        self._label, self._steps, self._done, self._began = label, steps - done, 0, time.monotonic()
        self._told = 0
        self._task = self._bars.add_task(label, total=steps, completed=done)
        self._say(f"{steps} steps" + (f", going on after step {done}" if done else ""))

    def step(self, loss: float) -> None:
        """Advance by one step; say once, from the first steps, how long the rest will take."""
        self._bars.update(self._task, advance=1, description=f"{self._label}, loss {loss:.4f}")
        self._done += 1
        if self._done == FIRST_STEPS < self._steps:
            seconds = (time.monotonic() - self._began) / FIRST_STEPS * (self._steps - FIRST_STEPS)
            self._say(f"at most about {round(seconds)} s left at the speed of the first {FIRST_STEPS} steps")

    def finish_epoch(self, epoch: Epoch) -> None:
        """Print the mean loss of an epoch, its time and the peak of memory; of many short epochs only some."""
        if self._done < self._steps and self._done - self._told < self._steps / LINES:
            return
        self._told = self._done
        peak = "" if epoch.peak_bytes is None else f", {epoch.peak_bytes / 2**30:.2f} GiB"
        self._say(
            f"stage {epoch.stage + 1}, epoch {epoch.epoch + 1}: loss {epoch.loss:.4f} ({epoch.seconds:.1f} s{peak})"
        )

    def _say(self, text: str) -> None:
        if not self._quiet:
            self._bars.console.print(f"{self._label}: {text}", highlight=False, markup=False, soft_wrap=True)


@contextmanager
def console_training(quiet: bool) -> Iterator[ConsoleTraining]:
    """Show the bars of trainings while the block runs; with `quiet` nothing."""
    with _bars(quiet) as bars:
        yield ConsoleTraining(bars, quiet)


@contextmanager
def console_bar(label: str, quiet: bool, note: str = "") -> Iterator[Callable[[int, int], None]]:
    """Show one bar from the first call on of the function (done, total) that is yielded, and warnings as sentences.

    note: a line that is printed at that call, also where bars are not shown.
    """
    with _bars(quiet) as bars, warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: bars.console.print(f"Note: {message}", markup=False, soft_wrap=True)
        tasks: list[TaskID] = []

        def advance(done: int, total: int) -> None:
            if not tasks:
                if note and not quiet:
                    bars.console.print(note, highlight=False, markup=False, soft_wrap=True)
                tasks.append(bars.add_task(label, total=total))
            bars.update(tasks[0], completed=done)

        yield advance


def console_reading(quiet: bool) -> AbstractContextManager[Callable[[int, int], None]]:
    """Show that a plan reads images and masks whose content is not known yet, if that takes long."""
    return console_bar("reading files", quiet, "Reading images and masks to know what they hold; later runs remember.")


@contextmanager
def console_files(quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """Show one bar in megabytes; yields a function (what, bytes done, bytes in total or 0) to call while working."""
    with _bars(quiet) as bars:
        task = bars.add_task("", total=None)
        yield lambda what, done, total: bars.update(
            task, description=f"{what} (MB)", completed=done / 1e6, total=total / 1e6 if total else None
        )


@contextmanager
def _bars(quiet: bool) -> Iterator[Progress]:
    """Yield bars that are drawn where a person watches; signals are raised meanwhile, so that they are removed.

    Elsewhere they never start: releases of rich before 15 end even disabled ones with an empty line.
    """
    console = Console(file=sys.stderr)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    bars = Progress(*columns, console=console, transient=True)
    with process.signals_raised(), nullcontext() if quiet or not console.is_terminal else bars:
        yield bars
