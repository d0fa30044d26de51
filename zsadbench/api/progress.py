"""Progress on standard error: bars where somebody watches, elsewhere lines, as in the log of a batch job."""

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

from zsadbench import metrics
from zsadbench.errors import counted
from zsadbench.records.results import Record
from zsadbench.running.progress import Recorded
from zsadbench.support import process
from zsadbench.support.texts import duration, first_sentence, grouped, printable
from zsadbench.tables.sheet import DASH
from zsadbench.tables.words import STATUSES

if TYPE_CHECKING:
    from zsadbench.training.checkpoints import Epoch

FIRST_STEPS = 10  # of a training, from which its time is estimated
LINES = 20  # at most that a training prints of its epochs


class ConsoleProgress:
    """Tells the progress of a run (contract: zsadbench.running.progress.Progress) on some bars.

    Where nobody watches them, as in a batch job, it prints a line a cell; elsewhere one of a cell that failed, and of
    categories that failed for one reason the first.
    """

    def __init__(self, bars: Progress, quiet: bool) -> None:
        """Draw on the given bars; with `quiet` only what the user should know is printed."""
        self._bars, self._quiet, self._in_lines = bars, quiet, not bars.console.is_terminal
        self._task: TaskID | None = None
        self._said: set[str] = set()
        self._cells = self._finished = 0
        self._left = self._predicted = 0  # images
        self._seed = 0  # of the first cell: of several seeds, the others are named
        self._began = time.monotonic()
        self._unfinished: list[tuple[str, str]] = []  # method, why a cell of it has no numbers

    def begin(self, cells: int, images: int) -> None:
        """Start the bar: `images` counts every (method, image) pair."""
        self._cells, self._left, self._began = cells, images, time.monotonic()
        self._task = self._bars.add_task(counted(cells, "cell"), total=images)

    def step(self, label: str, images: int) -> None:
        """Advance by some predictions on `label`."""
        self._left -= images
        self._predicted += images
        if self._task is not None:
            self._bars.update(self._task, advance=images, description=label)

    def skip(self, images: int) -> None:
        """Expect fewer predictions, so that cells which cannot run do not look like fast ones."""
        self._left -= images
        if self._task is not None:
            self._bars.update(self._task, total=self._left + self._predicted)

    def finish_cell(self, recorded: Recorded) -> None:
        """Print the line of a cell, if it has one here."""
        self._finished += 1
        record = recorded.record
        if record.status != "done":
            self._unfinished.append((record.method, record.reason))
        if self._quiet:
            return
        self._seed = recorded.seed if self._finished == 1 else self._seed
        other = f", seed {recorded.seed}" if recorded.seed != self._seed else ""
        cell = f"{record.dataset}/{record.category} {record.method}{other}  "
        if record.status != "done":
            cell += f"{STATUSES[record.status]}: {first_sentence(record.reason)}"
        if self._in_lines:
            done = f"{_scores(record)}  {duration(recorded.seconds)}{self._rest()}" if record.status == "done" else ""
            self._print(f"[{self._finished}/{self._cells}] {cell}{done}")
        elif record.status != "done":
            self._say(cell, key=f"{record.dataset} {record.method} {record.reason}")

    def _rest(self) -> str:
        """Say how long the predictions that are left take at the speed of those that were made."""
        if not self._left or not self._predicted:
            return ""
        return f", {duration(self._left * (time.monotonic() - self._began) / self._predicted)} left"

    def conclude(self) -> None:
        """Say in full why cells have no numbers, what holds for several methods once; a sentence stands above."""
        for names, reason in grouped(self._unfinished):
            if self._quiet or reason != first_sentence(reason):
                self._print(f"{', '.join(names)}: {reason}")

    def show_warning(self, message: Warning | str) -> None:
        """Print a warning as a sentence, once (takes the place of warnings.showwarning)."""
        self._say(f"Note: {message}")

    def _say(self, sentence: str, key: str = "") -> None:
        """Print a sentence unless it, or one of its key, was printed."""
        if (key or sentence) not in self._said:
            self._said.add(key or sentence)
            self._print(sentence)

    def _print(self, line: str) -> None:
        self._bars.console.print(printable(line), highlight=False, markup=False, soft_wrap=True)


def _scores(record: Record) -> str:
    """Return the AUROC of images and of pixels in percent, a dash where it is undefined."""
    values = {level: getattr(record, level).get("auroc") for level in metrics.LEVELS}
    return "  ".join(f"{level} {DASH if value is None else f'{100 * value:.1f}'}" for level, value in values.items())


def is_watched() -> bool:
    """Return whether a person sees standard error: it is a terminal, or a notebook runs."""
    console = Console(file=sys.stderr)
    return console.is_terminal or console.is_jupyter


@contextmanager
def console_progress(quiet: bool) -> Iterator[ConsoleProgress]:
    """Tell the progress of a run while the block runs; with `quiet` only notes, and at its end why cells failed."""
    with _bars(quiet) as bars, warnings.catch_warnings():
        progress = ConsoleProgress(bars, quiet)
        warnings.showwarning = lambda message, *_: progress.show_warning(message)
        yield progress
        progress.conclude()


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
