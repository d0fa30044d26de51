"""From a cell and its outcome to its record, and the log of what differs from run to run."""

from __future__ import annotations

import platform
import time
from typing import Any

from zsadbench import methods
from zsadbench.errors import NeedsCheckpoint, NotPossible, ZsadError
from zsadbench.methods import Method, TrainableMethod
from zsadbench.records import run_log
from zsadbench.records.results import Record
from zsadbench.running.evaluation import Evaluation
from zsadbench.running.planned import Cell
from zsadbench.running.request import Request
from zsadbench.support import environment, files
from zsadbench.support.meters import device_name
from zsadbench.training import cross_dataset


class Refused(ZsadError):
    """A cell that must not be run under the protocol."""


def has_seen(method: Method, cell: Cell) -> bool:
    """Tell whether the method's checkpoint is known to have been trained on the cell's dataset, or on its images.

    Data of the user's own is known by what it holds, and by its name only where the checkpoint does not say what it
    has seen.
    """
    own = cell.dataset.card.domain == "custom"
    if cell.seen or not isinstance(method, TrainableMethod) or (own and cell.seen is not None):
        return bool(cell.seen)
    return cross_dataset.has_seen(method.trained_on or (), cell.dataset.name, own=own)


def done(cell: Cell, method: Method, outcome: Evaluation, request: Request) -> Record:
    """Return the record of a finished cell; it holds nothing that differs between two runs of the same cell."""
    planned, encoder = cell.planned, method.encoder
    trained_on = method.trained_on if isinstance(method, TrainableMethod) else frozenset()
    return Record(
        method=planned.name,
        dataset=cell.dataset.name,
        category=cell.category.name,
        status="done",
        fingerprint=cell.fingerprint,
        title=method.card.title,
        notes=method.card.notes,
        image=outcome.image,
        pixel=outcome.pixel,
        details=outcome.details,
        setting={
            "scope": method.scope,
            "image_scope": method.image_scope,
            "shots": method.shots,
            "references": [cell.dataset.sample_id(sample) for sample in cell.references],
            "trained_on": None if trained_on is None else sorted(trained_on),
            "checkpoint": planned.checkpoint_differs,
            "checkpoint_sha256": planned.checkpoint_sha256,
            "leak": has_seen(method, cell),
        },
        protocol={**cell.parts["protocol"], "batch_images": method.batch_images},
        options=dict(cell.parts["options"]),
        changed=files.as_json(methods.changed(planned.name, planned.config)),
        encoder=encoder.identity if encoder is not None else {},
        data=dict(cell.parts["data"]),
        code=dict(cell.parts["code"]),
        environment=environment.describe(request.device),
    )


def failure(cell: Cell, problem: ZsadError) -> Record:
    """Return the record of a cell that has no numbers, with the sentence that says why."""
    kinds = {NeedsCheckpoint: "needs_checkpoint", NotPossible: "not_possible", Refused: "refused"}
    return Record(
        method=cell.planned.name,
        dataset=cell.dataset.name,
        category=cell.category.name,
        status=kinds.get(type(problem), "failed"),  # type: ignore[arg-type]  # the values are Status literals
        error=str(problem).strip() or type(problem).__name__,
        title=cell.planned.method.card.title,
    )


def log(
    cell: Cell, record: Record, request: Request, seconds: tuple[float, float], parked: tuple[int, int] = (0, 0)
) -> None:
    """Append what must not be in a record, because it differs from run to run: when, how long, and how much disk.

    seconds: to predict and to evaluate. parked: bytes of the cell's maps that were on disk meanwhile, and of features,
    which cells of a category share.
    """
    line: dict[str, Any] = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "dataset": cell.dataset.name,
        "method": cell.planned.name,
        "category": cell.category.name,
        "status": record.status,
        "images": len(cell.samples),
        "seconds_predict": round(seconds[0], 4),
        "seconds_evaluate": round(seconds[1], 4),
        "device": device_name(request.device),
        "host": platform.node(),
        "bytes_maps": parked[0],
        "bytes_features": parked[1],
    }
    if record.status != "done":
        line["reason"] = record.reason
    run_log.append(request.out, line)
