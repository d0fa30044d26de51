"""The regression gate: the numbers of a run against those that were written down as its baseline.

A baseline is one JSON file: every finished cell's metrics at full precision, the tolerance that its keeper chose, and
where the numbers come from.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from zsadbench import metrics
from zsadbench.errors import RecordError, UsageError
from zsadbench.protocol import FREE_FIELDS
from zsadbench.records.results import Record
from zsadbench.support import documents, files

FORMAT = 1  # of the file; raised when a field changes its meaning
EVERY = "all"  # the tolerance of metrics that have none of their own
TOLERANCE = 0.5  # points, where a baseline's keeper chose none
SHOWN = 0.05  # points: smaller changes do not show in a table of one decimal

Metrics = dict[str, float | None]  # "image auroc" -> value in 0..1; None: undefined
Verdict = Literal["worse", "better", "moved", "missing", "new"]


@dataclass(frozen=True)
class Baseline:
    """What a run is compared with."""

    cells: dict[str, Metrics]  # "dataset/method/category" -> metrics
    tolerance: dict[str, float]  # points (percent) by which "image auroc" and the like may get worse; "all": the others
    provenance: dict[str, Any] = field(default_factory=dict)  # protocol, encoders and versions of the run
    format: int = FORMAT


class GateLine(NamedTuple):
    """One line of the diff."""

    verdict: Verdict  # "worse" and "missing" fail the gate
    cell: str
    metric: str = ""  # "" for a whole cell
    before: float | None = None
    now: float | None = None
    reason: str = ""  # why a cell has no numbers

    @property
    def fails(self) -> bool:
        """Tell whether the gate falls."""
        return self.verdict in ("worse", "missing")


def make(records: Iterable[Record], tolerance: Mapping[str, float]) -> Baseline:
    """Return the baseline of a run. Raises RecordError for a run with nothing finished or with unfinished cells."""
    records = list(records)
    unfinished = [_cell(record) for record in records if record.status != "done" or record.failure is not None]
    if unfinished or not records:
        what = f"{len(unfinished)} unfinished cells, such as {unfinished[0]}" if unfinished else "no cells"
        raise RecordError(f"A baseline needs a run whose cells are all finished; got {what}. Run them first.")
    first = records[0]
    provenance = {"protocol": _protocol(first), "images": _images(records), **_circumstances(records)}
    return Baseline({_cell(record): _metrics(record) for record in records}, dict(tolerance), provenance)


def save(baseline: Baseline, path: Path) -> None:
    """Write a baseline, whole or not at all. Raises RecordError."""
    files.write_atomically(path, json.dumps(asdict(baseline), indent=1, allow_nan=False) + "\n")


def load(path: Path) -> Baseline:
    """Read a baseline. Raises RecordError naming the file."""
    try:
        baseline = documents.build(Baseline, documents.read(path))
    except FileNotFoundError as error:
        raise RecordError(f"{path} does not exist. Write it from a run that is right: add --update.") from error
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error.strerror or error}. Check who may read it.") from error
    except documents.Malformed as error:
        raise RecordError(f"{path} is no baseline: {error}. Write it again with --update.") from error
    if baseline.format != FORMAT:
        raise RecordError(f"{path} has format {baseline.format}; expected {FORMAT}. Write it again with --update.")
    return baseline


def parse_tolerance(items: Sequence[str]) -> dict[str, float]:
    """Read "0.5" or "pixel.ap=1": points by metric, as in `Baseline.tolerance`. Raises UsageError."""
    found = {}
    for item in items:
        name, _, value = item.rpartition("=")
        try:
            points = float(value)
        except ValueError:
            points = -1.0
        if not 0 <= points <= 100:
            raise UsageError(
                f"--tolerance {item}: expected points of 0 to 100, for all metrics or for one, as in 0.5 or pixel.ap=1."
            )
        found[name.replace(".", " ") or EVERY] = points
    return found


def compare(records: Iterable[Record], baseline: Baseline, tolerance: Mapping[str, float]) -> list[GateLine]:
    """Return every difference of a run from its baseline, failures first.

    tolerance: points by metric, over the baseline's own. A metric that was defined and is not any more is worse.
    Raises UsageError for a tolerance of a metric that the baseline lacks, and for a run of another protocol or of
    other images, whose numbers say nothing about a regression.
    """
    records = list(records)
    _check_comparable(records, baseline)
    known = {metric for metrics in baseline.cells.values() for metric in metrics}
    unknown = sorted(tolerance.keys() - known - {EVERY})
    if unknown:
        raise UsageError(
            f"--tolerance {unknown[0]}: the baseline has no such metric; it has {', '.join(sorted(known))}."
        )
    allowed = {**baseline.tolerance, **tolerance}
    found = {_cell(record): record for record in records}
    changes = [GateLine("new", cell) for cell in found if cell not in baseline.cells]
    for cell, before in baseline.cells.items():
        record = found.get(cell)
        if record is None or record.status != "done" or record.failure is not None:  # of a newer attempt
            reason = "not in the run" if record is None else record.failure or record.reason
            changes.append(GateLine("missing", cell, reason=reason))
            continue
        now = _metrics(record)
        for metric, value in before.items():
            verdict = _verdict(metric, value, now.get(metric), allowed.get(metric, allowed.get(EVERY, 0.0)))
            if verdict:
                changes.append(GateLine(verdict, cell, metric, value, now.get(metric)))
    return sorted(changes, key=lambda change: not change.fails)


def _check_comparable(records: Sequence[Record], baseline: Baseline) -> None:
    done = [record for record in records if record.status == "done"]
    ours = {"protocol": _protocol(done[0]), "images": _images(done)} if done else {}
    for kind, found in ours.items():
        expected = baseline.provenance.get(kind, {})
        different = [name for name in found if name in expected and found[name] != expected[name]]
        if different:
            name = different[0]
            raise UsageError(
                f"The run and the baseline differ in {kind}: {name} is {found[name]!r} in the run and "
                f"{expected[name]!r} in the baseline. Run it as the baseline was run, or write a new one with --update."
            )


def notes(records: Iterable[Record], baseline: Baseline) -> list[str]:
    """Return what else differs from the baseline's run and may move numbers: encoder weights, versions, device."""
    now = _circumstances([record for record in records if record.status == "done"])
    return [
        f"{name} is {found}; it was {baseline.provenance[kind][name]} in the baseline's run."
        for kind, values in now.items()
        for name, found in values.items()
        if baseline.provenance.get(kind, {}).get(name, found) != found
    ]


def _circumstances(records: Sequence[Record]) -> dict[str, dict[str, Any]]:
    encoders = {record.encoder["spec"]: record.encoder.get("sha256") for record in records if record.encoder}
    return {"encoders": encoders, "environment": records[0].environment if records else {}}


def _protocol(record: Record) -> dict[str, Any]:
    return {name: value for name, value in record.protocol.items() if name not in FREE_FIELDS}


def _images(records: Iterable[Record]) -> dict[str, str]:
    return {f"{record.dataset}/{record.category}": record.data["sha256"] for record in records}


def _verdict(metric: str, before: float | None, now: float | None, points: float) -> Verdict | None:
    if before is None or now is None:
        return None if before is now else "better" if before is None else "worse"
    change = 100 * (now - before)
    if abs(change) > points:
        return "better" if (change > 0) == metrics.get(metric.split()[-1]).higher_is_better else "worse"
    return "moved" if abs(change) >= SHOWN else None


def _cell(record: Record) -> str:
    return f"{record.dataset}/{record.method}/{record.category}"


def _metrics(record: Record) -> Metrics:
    levels = {"image": record.image, "pixel": record.pixel}
    return {f"{level} {name}": value for level, metrics in levels.items() for name, value in metrics.items()}
