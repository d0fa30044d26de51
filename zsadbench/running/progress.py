"""What a run tells while it works."""

from __future__ import annotations

from typing import Protocol

from zsadbench.records.results import Record


class Progress(Protocol):
    """What the runner tells while it works; the command line draws bars from it."""

    def begin(self, cells: int, images: int) -> None:
        """Announce how many cells and image predictions the run has."""

    def step(self, label: str, images: int) -> None:
        """Report that `images` more predictions are done, and on what."""

    def finish_cell(self, record: Record) -> None:
        """Report that a cell has been recorded."""


class Silent:
    """A Progress that tells nothing, for those to whom the records tell enough."""

    def begin(self, cells: int, images: int) -> None:
        """Show nothing."""

    def step(self, label: str, images: int) -> None:
        """Show nothing."""

    def finish_cell(self, record: Record) -> None:
        """Show nothing."""
