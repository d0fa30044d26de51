"""What a run tells while it works."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from zsadbench.records.results import Record


class Recorded(NamedTuple):
    """The record of a cell as it was just written, and what the cell took."""

    record: Record
    seconds: float  # to predict and to evaluate; passes that methods share count for the one that needed them first
    seed: int  # of the protocol


class Progress(Protocol):
    """What the runner tells while it works; the command line draws bars from it."""

    def begin(self, cells: int, images: int) -> None:
        """Announce how many cells and image predictions the run has."""

    def step(self, label: str, images: int) -> None:
        """Report that `images` more predictions are done, and on what."""

    def skip(self, images: int) -> None:
        """Report that `images` of the announced predictions will not be made."""

    def finish_cell(self, recorded: Recorded) -> None:
        """Report that a cell has been recorded."""


class Silent:
    """A Progress that tells nothing, for those to whom the records tell enough."""

    def begin(self, cells: int, images: int) -> None:
        """Show nothing."""

    def step(self, label: str, images: int) -> None:
        """Show nothing."""

    def skip(self, images: int) -> None:
        """Show nothing."""

    def finish_cell(self, recorded: Recorded) -> None:
        """Show nothing."""


class Relay:
    """A Progress that tells another one, for those that add to what is told or leave something out."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def begin(self, cells: int, images: int) -> None:
        """Pass it on."""
        self._progress.begin(cells, images)

    def step(self, label: str, images: int) -> None:
        """Pass it on."""
        self._progress.step(label, images)

    def skip(self, images: int) -> None:
        """Pass it on."""
        self._progress.skip(images)

    def finish_cell(self, recorded: Recorded) -> None:
        """Pass it on."""
        self._progress.finish_cell(recorded)
