"""The result record of one cell, where it lies, and how it is written and read.

A cell is (method, dataset, category). Its record is `RUN/DATASET/METHOD/CATEGORY.json`, and beside it
`CATEGORY.csv` holds the score of every image and `CATEGORY.pixels.npz` histograms of its pixels (`pixel_files`).
Records are deterministic: no times, no paths. Numbers keep full precision; rounding happens in tables alone.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from zsadbench.errors import RecordError
from zsadbench.support import files

FORMAT = 1  # of the record; raised when a field changes its meaning
Status = Literal["done", "failed", "needs_checkpoint", "refused"]


@dataclass(frozen=True)
class Record:
    """Everything known about one cell. Only the first four fields exist for a cell that is not done."""

    method: str  # CLI name with preset, e.g. "april_gan.visa"
    dataset: str  # dataset name with variant
    category: str
    status: Status
    error: str | None = None  # a sentence for every cell that is not done; a bug's traceback stands below it
    fingerprint: str = ""  # sha256 over everything that decides the numbers; a cell with an equal one is not run again
    title: str = ""  # the method's printed name
    image: dict[str, float | None] = field(default_factory=dict)  # image-level metrics in 0..1; None: undefined
    pixel: dict[str, float | None] = field(default_factory=dict)  # pixel-level metrics in 0..1; None: undefined
    details: dict[str, Any] = field(default_factory=dict)  # counts, thresholds, regions, bound of an inexact metric
    setting: dict[str, Any] = field(default_factory=dict)  # scope, shots, references, trained_on, leak
    protocol: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)  # the method's options
    encoder: dict[str, Any] = field(default_factory=dict)  # spec, size, activation, pos_embed, precision, sha256
    data: dict[str, Any] = field(default_factory=dict)  # sample-list hash, counts, order
    environment: dict[str, Any] = field(default_factory=dict)  # versions and device kind
    format: int = FORMAT

    @property
    def reason(self) -> str:
        """Why the cell has no numbers, in one line."""
        return reason(self.error)


class ImageScore(NamedTuple):
    """One image's line in the scores file."""

    sample: str  # path relative to the dataset root
    label: int
    defect: str
    score: float


def record_path(run: Path, dataset: str, method: str, category: str) -> Path:
    """Return where the record of a cell lies."""
    return run / dataset / method / f"{category}.json"


def save(run: Path, record: Record, scores: Sequence[ImageScore] = ()) -> Path:
    """Write a cell: scores first, then the record, each atomically, so that a record always has its scores.

    Raises RecordError when the disk is full or not writable; nothing that was finished is touched.
    """
    path = record_path(run, record.dataset, record.method, record.category)
    if scores:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(ImageScore._fields)
        writer.writerows((*line[:3], repr(float(line.score))) for line in scores)
        files.write_atomically(path.with_suffix(".csv"), text.getvalue())
    files.write_atomically(path, json.dumps(asdict(record), indent=1, default=files.plain, allow_nan=False) + "\n")
    return path


def load(path: Path) -> Record:
    """Read and check one record. Raises RecordError naming the file."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data.get("format") != FORMAT:
            raise RecordError(
                f"{path} has record format {data.get('format')!r}; expected {FORMAT}. Run the cell again."
            )
        return Record(**data)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise RecordError(f"{path} is not a zsadbench record: {error}. Delete it and run the cell again.") from error


def load_run(run: Path) -> list[Record]:
    """Read every record of a run folder, sorted by dataset, method and category. Raises RecordError."""
    if not run.is_dir():
        raise RecordError(f"{run} is not a run folder; expected the --out of an earlier `zsadbench run`.")
    return [load(path) for path in sorted(run.glob("*/*/*.json"))]


def load_scores(run: Path, record: Record) -> list[ImageScore]:
    """Read the per-image scores of a record. Raises RecordError."""
    path = record_path(run, record.dataset, record.method, record.category).with_suffix(".csv")
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [
                ImageScore(row["sample"], int(row["label"]), row["defect"], float(row["score"]))
                for row in csv.DictReader(file)
            ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecordError(
            f"{path} is not a scores file: {error}. Delete it and its record and run the cell again."
        ) from error


def reason(error: str | None) -> str:
    """Return the line of an error that says what happened: the first, or the last of a bare traceback."""
    lines = (error or "").strip().splitlines() or ["No reason was recorded."]
    return lines[-1] if lines[0].startswith("Traceback") else lines[0]


def mean(values: Iterable[float | None]) -> tuple[float | None, int, int]:
    """Return (mean over the defined values, how many are defined, how many there are)."""
    values = list(values)
    defined = [value for value in values if value is not None]
    return (math.fsum(defined) / len(defined) if defined else None), len(defined), len(values)
