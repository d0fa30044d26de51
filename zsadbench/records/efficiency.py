"""What a method costs: the record of one measurement, and where it lies. `zsadbench.profiling.measure` makes records.

A record is `RUN/efficiency/METHOD.json`. It holds what was inside the timed region in words, because published times of
one method differ several times between sources whose timing scopes differ (results/README.md).
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from zsadbench.errors import RecordError
from zsadbench.records.results import reason
from zsadbench.support import documents, files, variants
from zsadbench.support.documents import Malformed

FORMAT = 1  # of the record; raised when a field changes its meaning
FOLDER = "efficiency"
VISA_IMAGES = 2162  # of VisA's test split, an epoch of Dual-Anchor's Table S1 (docs/methods/dual_anchor.md)


@dataclass(frozen=True)
class ProfileOptions:
    """How to measure."""

    random_weights: bool = False  # for encoders that would have to be downloaded
    batches: Sequence[int] = (1, 2, 4, 8, 16, 32, 64)  # images an encoder pass, ascending; the first is the latency's
    category_images: int = 8  # that methods get which see a whole category: their cost an image grows with it
    warmup: int = 2  # passes before those that are measured
    repeat: int = 10  # measured passes
    threads: int | None = None  # on the CPU; None: torch's default
    train: bool = False  # measure training steps too
    steps: int = 4  # of an epoch that is measured, after one that warms up
    epoch_images: int = VISA_IMAGES  # that minutes per epoch are told for
    plugin_folders: Sequence[Path] = ()  # of the user, for the process that measures


@dataclass(frozen=True)
class Timing:
    """Repeated passes at one batch size; times are milliseconds an image."""

    batch: int  # images an encoder pass
    images: int  # in a measured pass: more than `batch` for methods that compare images
    repeats: int
    median_ms: float
    p10_ms: float
    p90_ms: float
    peak_bytes: int | None  # memory during these passes, weights included

    @property
    def images_per_second(self) -> float:
        """Return the throughput of the median pass."""
        return 1000 / self.median_ms


@dataclass(frozen=True)
class StageCost:
    """Training steps of one stage of a recipe; times are seconds a step, loading of images included."""

    name: str
    epochs: int  # in the recipe
    batch_size: int
    steps: int  # measured in each of the two epochs
    first_seconds: float  # median; encoder features are computed
    later_seconds: float  # median; encoder features that a method asks for are kept in memory from an earlier epoch

    def minutes_per_epoch(self, images: int, seconds: float) -> float:
        """Return how long an epoch of `images` takes at so many seconds a step."""
        return -(-images // self.batch_size) * seconds / 60


@dataclass(frozen=True)
class Training:
    """What training costs, from a few steps on synthetic pictures."""

    stages: tuple[StageCost, ...]
    epoch_images: int  # that minutes per epoch are told for
    peak_bytes: int | None  # memory of training steps, frozen weights included

    @property
    def minutes_per_epoch(self) -> float:
        """Return the mean over the recipe's epochs when features are computed in every epoch."""
        return self._mean([stage.minutes_per_epoch(self.epoch_images, stage.first_seconds) for stage in self.stages])

    @property
    def later_minutes_per_epoch(self) -> float:
        """Return the mean over the recipe's epochs when features are kept."""
        return self._mean([stage.minutes_per_epoch(self.epoch_images, stage.later_seconds) for stage in self.stages])

    def _mean(self, minutes: Sequence[float]) -> float:
        epochs = [stage.epochs for stage in self.stages]
        return sum(value * count for value, count in zip(minutes, epochs, strict=True)) / sum(epochs)


@dataclass(frozen=True)
class EfficiencyRecord:
    """Everything known about the cost of one method on one device. A failed one has only the first five fields."""

    method: str  # CLI name with preset
    title: str  # the method's printed name
    status: Literal["done", "failed"]
    device: str  # name of the GPU or processor
    precision: str  # of encoder passes
    error: str | None = None  # a sentence; a bug's traceback stands below it
    threads: int | None = None  # on the CPU
    clock: str = ""  # what measured the time
    timed: str = ""  # what is inside the timed region, in words
    setting: dict[str, Any] = field(default_factory=dict)  # scope, shots
    options: dict[str, Any] = field(default_factory=dict)  # the method's options
    changed: dict[str, Any] | None = None  # options that are not the preset's, as in a result record
    encoder: dict[str, Any] = field(default_factory=dict)  # identity, as in a result record
    random_weights: bool = False  # of an encoder; trained parts are always as at the start of a training
    text_prompts: dict[str, float] = field(default_factory=dict)  # through the text tower: "once", "category", "image"
    text_ms: float | None = None  # milliseconds that a new category adds, for its text features; None: it has none
    parameters: int = 0  # of encoder, text tower where it is used, and trained part
    trained_parameters: int = 0
    flops: float | None = None  # an image; a multiply-add counts as two; matrix products and convolutions alone
    encoder_flops: float | None = None  # of the bare encoder pass, an image; None: no encoder
    peak_flops: float = 0.0  # a second, in a large square matrix product of the same precision on this device
    timings: tuple[Timing, ...] = ()  # by batch size; the first is the latency
    encoder_timings: tuple[Timing, ...] = ()  # of the bare encoder pass, at the first and at the best batch size
    stopped: str = ""  # why no larger batch was tried
    baseline_bytes: int | None = None  # CPU: memory of the process before any weights; GPU: 0
    training: Training | None = None
    environment: dict[str, str] = field(default_factory=dict)  # versions
    format: int = FORMAT

    @property
    def reason(self) -> str:
        """Why nothing was measured, in one line."""
        return reason(self.error)

    @property
    def best(self) -> Timing:
        """Return the timing with the highest throughput."""
        return min(self.timings, key=lambda timing: timing.median_ms)

    @property
    def encoder_fraction(self) -> float | None:
        """Return the same of the bare encoder pass, at its best batch; None without an encoder."""
        if self.encoder_flops is None:
            return None
        best = max(timing.images_per_second for timing in self.encoder_timings)
        return self.encoder_flops * best / self.peak_flops

    @property
    def fraction_of_peak(self) -> float | None:
        """Return achieved over possible floating-point operations a second, at the best batch; None without any."""
        return self.flops * self.best.images_per_second / self.peak_flops if self.flops else None


def path_of(run: Path, method: str) -> Path:
    """Return where the record of a method lies."""
    return run / FOLDER / f"{variants.to_folder(method)}.json"


def save(run: Path, record: EfficiencyRecord) -> Path:
    """Write a record whole or not at all. Raises RecordError."""
    path = path_of(run, record.method)
    files.write_atomically(path, json.dumps(asdict(record), indent=1, default=str, allow_nan=False) + "\n")
    return path


def load(path: Path) -> EfficiencyRecord:
    """Read a record. Raises RecordError naming the file."""
    try:
        data = documents.read(path)
        if isinstance(data, dict) and data.get("format") != FORMAT:
            raise Malformed(f"its format is {str(data.get('format'))[:40]}; expected {FORMAT}")
        record = documents.build(EfficiencyRecord, data)
        _check(record, path)
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error.strerror or error}. Check who may read it.") from error
    except Malformed as error:
        raise RecordError(f"{path} is no efficiency record: {error}. Delete it and measure again.") from error
    return record


def _check(record: EfficiencyRecord, path: Path) -> None:
    """Raise Malformed unless the values of a record can be measurements: tables divide by some of them."""
    if record.method != path.stem:
        raise Malformed(f"it says that it is of {record.method[:200]}, but lies in {path.name}")
    if record.status != "done":
        return
    documents.checked(record.setting.get("scope"), Literal["image", "batch", "category"], "setting.scope")
    documents.checked(record.setting.get("shots"), int, "setting.shots")
    if record.encoder:
        documents.checked(record.encoder.get("spec"), str, "encoder.spec")
        documents.checked(record.encoder.get("size"), int, "encoder.size")
    stages = record.training.stages if record.training else ()
    amounts = [
        *(timing.median_ms for timing in (*record.timings, *record.encoder_timings)),
        *(stage.epochs for stage in stages),
        *(stage.batch_size for stage in stages),
        *([record.peak_flops] if record.flops or record.encoder_flops else []),
    ]
    if not record.timings or (record.training and not stages) or (record.encoder_flops and not record.encoder_timings):
        raise Malformed("it holds no measurement")
    if min(amounts) <= 0:
        raise Malformed("a time, a size or a rate in it is not above 0")


def load_run(run: Path) -> list[EfficiencyRecord]:
    """Read the efficiency records of a run folder, sorted by method; a damaged one is a warning.

    Raises RecordError where there are none.
    """
    paths = sorted((run / FOLDER).glob("*.json"))
    if not paths:
        raise RecordError(f"{run} has no efficiency records; run `zsadbench profile --out {run}` first.")
    found = []
    for path in paths:
        try:
            found.append(load(path))
        except RecordError as error:
            if len(paths) == 1:
                raise
            warnings.warn(f"an efficiency record is left out: {error}", stacklevel=1)
    return found
