"""What a record must be to be believed: checked when it is read, because anybody may have written it.

The types of a record's fields are checked by `zsadbench.support.documents`. Here is what they cannot say: metrics are
in 0..1, a record lies where its names say, and what tables and figures read of its parts is there.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from zsadbench.datasets import Oddity
from zsadbench.errors import UsageError
from zsadbench.records.record import ImageScore, Record
from zsadbench.support import documents, variants
from zsadbench.support.documents import Malformed

SCOPE = Literal["image", "batch", "category"]
NEEDED: dict[str, dict[str, Any]] = {  # of a finished record
    "setting": {"scope": SCOPE, "shots": int},
    "protocol": {"seed": int, "aupro_limit": float},
    "data": {"samples": int, "sha256": str},
}
KNOWN: dict[str, dict[str, Any]] = {  # checked where they are there
    "setting": {
        "image_scope": SCOPE,
        "references": list[str],
        "trained_on": list[str] | None,
        "leak": bool,
        "checkpoint_sha256": str,
    },
    "protocol": {"limit": int | None, "batch_size": int, "batch_images": int | None},
    "data": {"noun": str},
    "encoder": {"spec": str, "precision": str, "sha256": str | None, "text_sha256": str | None},
    "environment": {"device": str},
}


def check(record: Record) -> None:
    """Raise Malformed unless the values of a record can be those of a cell."""
    try:
        variants.split(record.method)
    except UsageError as error:
        raise Malformed(str(error)) from error
    for level in ("image", "pixel"):
        for name, value in getattr(record, level).items():
            if value is not None and not 0 <= value <= 1:
                raise Malformed(f"{level}.{name} is {value}; expected 0..1 or null")
    for part, needed in NEEDED.items() if record.status == "done" else ():
        for name in needed.keys() - getattr(record, part).keys():
            raise Malformed(f"{part}.{name} is missing")
    for part, known in KNOWN.items():
        hints = {**known, **NEEDED.get(part, {})}
        for name, value in getattr(record, part).items():
            documents.checked(value, hints.get(name, Any), f"{part}.{name}")
    _check_details(record.details)


def _check_details(details: dict[str, Any]) -> None:
    pixel = documents.checked(details.get("pixel", {}), dict[str, Any], "details.pixel")
    for name in pixel.keys() & {"lost_regions", "native_regions"}:
        documents.checked(pixel[name], int, f"details.pixel.{name}")
    if details.get("odd"):
        documents.checked(details["odd"], dict[str, Oddity], "details.odd")


def check_place(record: Record, path: Path, folder: Path) -> None:
    """Raise Malformed unless a record lies in the folder of its names: the files beside it are found by them."""
    named = f"{record.dataset}/{variants.to_folder(record.method)}/{record.category}"
    place = f"{folder.parent.name}/{folder.name}/{path.stem}"
    if named != place:
        raise Malformed(f"it says that it is {named[:200]}, but lies in {place}")


def scores(content: bytes) -> list[ImageScore]:
    """Read a scores file. Raises Malformed."""
    try:
        reader = csv.DictReader(io.StringIO(content.decode(), newline=""), strict=True)
        if reader.fieldnames != list(ImageScore._fields):
            raise Malformed(f"its columns are not {', '.join(ImageScore._fields)}")
        return _checked(
            ImageScore(row["sample"], int(row["label"]), row["defect"], float(row["score"])) for row in reader
        )
    except Malformed:
        raise
    except (ValueError, TypeError, KeyError, csv.Error) as error:
        raise Malformed(str(error)) from error


def _checked(lines: Iterable[ImageScore]) -> list[ImageScore]:
    found: dict[str, ImageScore] = {}
    for line in lines:
        if line.sample in found or line.label not in (0, 1) or not math.isfinite(line.score):
            raise Malformed(f"{line} is there; expected each sample once, a label of 0 or 1, and a finite score")
        found[line.sample] = line
    return list(found.values())
