"""What is written down of one cell: its record, and the line of an image in the scores file beside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

FORMAT = 2  # of the record; raised when a field changes its meaning
Status = Literal["done", "failed", "needs_checkpoint", "not_possible", "refused"]


def reason(error: str | None) -> str:
    """Return the line of an error that says what happened: the first, or the last of a bare traceback."""
    lines = (error or "").strip().splitlines() or ["No reason was recorded."]
    return lines[-1] if lines[0].startswith("Traceback") else lines[0]


@dataclass(frozen=True)
class Record:
    """Everything known about one cell. Only the first five fields exist for a cell that is not done."""

    method: str  # CLI name with preset, e.g. "april_gan.visa"
    dataset: str  # dataset name with variant
    category: str
    status: Status
    error: str | None = None  # a sentence for every cell that is not done; a bug's traceback stands below it
    fingerprint: str = ""  # sha256 over everything that decides the numbers
    title: str = ""  # the method's printed name
    notes: str = ""  # of the method's card: what is inferred, approximated or not reproduced
    image: dict[str, float | None] = field(default_factory=dict)  # image-level metrics in 0..1; None: undefined
    pixel: dict[str, float | None] = field(default_factory=dict)  # pixel-level metrics in 0..1; None: undefined
    details: dict[str, Any] = field(default_factory=dict)  # counts, thresholds, regions, bound of an inexact metric
    setting: dict[str, Any] = field(default_factory=dict)  # scope, shots, references, trained_on, checkpoint, leak
    protocol: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)  # the method's options
    changed: dict[str, Any] | None = None  # options that are not the preset's -> the preset's value; None: not known
    encoder: dict[str, Any] = field(default_factory=dict)  # spec, size, activation, pos_embed, precision, sha256
    data: dict[str, Any] = field(
        default_factory=dict
    )  # noun, count and digests of the samples, digest of the references
    code: dict[str, str] = field(default_factory=dict)  # digests of what decided the numbers (`support.source`)
    environment: dict[str, Any] = field(default_factory=dict)  # versions and device kind
    files: dict[str, str] = field(default_factory=dict)  # suffix of a file beside the record -> sha256; set by `save`
    format: int = FORMAT
    failure: str | None = None  # why a newer attempt at this finished cell failed; not in the file, set by `load_run`

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
