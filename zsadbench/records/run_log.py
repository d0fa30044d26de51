"""`RUN/log.jsonl`: what differs between two equal runs. One line of JSON for each time that a cell got its record.

    time              when, with the offset from UTC: 2026-11-28T19:13:40+0000
    dataset, method, category, status   of the record
    reason            why there are no numbers, of a cell that is not "done"
    images            of the cell
    seconds_predict   in the method; encoder passes that several methods share count for the one that needed them first
    seconds_evaluate  from predicted maps to metrics; cells are evaluated beside each other
    device            as in records
    host              name of the machine
    bytes_maps, bytes_features   on disk while the cell was at work; features are shared by the cells of a category

Later versions may add fields. No number is made from this file: it may be read by anybody, and deleted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from zsadbench.support import files

FILE = "log.jsonl"


def append(run: Path, entry: Mapping[str, Any]) -> None:
    """Add a line to the log of a run folder, whichever processes do the same. Raises RecordError."""
    files.append_line(run / FILE, json.dumps(entry))


def read(run: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a run's log; nothing where there is none, and no line that cannot be read."""
    try:
        text = (run / FILE).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    for line in text.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:  # the end of a disk, or of a process
            continue
        if isinstance(entry, dict):
            yield entry
