"""The result record of one cell, where it lies, and how it is written and read.

A cell is (method, dataset, category). What a run folder holds of it:

    RUN/DATASET/METHOD/CATEGORY.json         the record: its numbers, and what they stand for
    RUN/DATASET/METHOD/CATEGORY.csv          the score of every image
    RUN/DATASET/METHOD/CATEGORY.pixels.npz   histograms of its pixels (`pixel_files`)
    RUN/DATASET/METHOD/CATEGORY.maps.npz     its maps, of a run with --save-maps (`saved_maps`)
    RUN/DATASET/METHOD/failed/CATEGORY.json  why a newer attempt at a finished cell failed

METHOD is the name of the method; of a variant with its options, such as `fiseclip[lambda_=1.05]`, in which what no
folder may be called is a %-code (`support.variants`). A run of several seeds holds such folders: `RUN/seed-0`.

Records are deterministic: no times, no paths. Numbers keep full precision; rounding happens in tables alone. A record
holds the digests of the two files that belong to its numbers, and maps hold the record's fingerprint: files of another
run are never read as this one's. A finished record is replaced by a finished one alone. What failed is written in its
place only where nothing finished stands; otherwise below `failed`, until the cell is finished again.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from zsadbench.errors import RecordError
from zsadbench.records import places, reading
from zsadbench.records.record import FORMAT as FORMAT
from zsadbench.records.record import ImageScore as ImageScore
from zsadbench.records.record import Record as Record
from zsadbench.records.record import Status as Status
from zsadbench.records.record import reason as reason
from zsadbench.support import documents, files, variants
from zsadbench.support.documents import Malformed

READABLE = (1, FORMAT)  # 1 has no `code` and no `files`: its numbers are as good, but its cells run again
SCORES, PIXELS, MAPS = ".csv", ".pixels.npz", ".maps.npz"  # suffixes of the files beside a record
FAILED = "failed"  # the folder of newer attempts, beside the records
MEAN = "/mean"  # stands for all categories of a dataset: none has a slash in its name, but one may be called mean


class Unreadable(RecordError):
    """A record that is there, but may not be read, or not now: it may well be a good one."""


def record_path(run: Path, dataset: str, method: str, category: str) -> Path:
    """Return where the record of a cell lies."""
    return run / dataset / variants.to_folder(method) / f"{category}.json"


def path_of(run: Path, record: Record, suffix: str = ".json") -> Path:
    """Return where a record lies, or the file of a suffix beside it."""
    path = record_path(run, record.dataset, record.method, record.category)
    return path.with_name(record.category + suffix)


def failure_path(path: Path) -> Path:
    """Return where a failed attempt is written while a finished record stands at a path."""
    return path.parent / FAILED / path.name


def save(run: Path, record: Record, beside: Mapping[str, bytes] | None = None) -> Record:
    """Write a finished cell: its files by suffix, then the record with their digests. Returns the record as written.

    All of it is on the disk before the first file is replaced, and the record comes last: a process that dies leaves
    the old cell or the new one. Files of an older record and failed attempts go. Raises RecordError when the disk is
    full or not writable; then nothing that was finished is touched.
    """
    beside = beside or {}
    digests = {suffix: _sha256(content) for suffix, content in beside.items() if suffix != MAPS}
    record = replace(record, files=digests)
    path = path_of(run, record)
    before = finished(path)
    own = [MAPS] if before is not None and before.fingerprint == record.fingerprint else []  # maps stay good
    stale = [path_of(run, record, one) for one in (SCORES, PIXELS, MAPS) if one not in (*beside, *own)]
    contents = {path_of(run, record, suffix): content for suffix, content in beside.items()}
    files.write_together({**contents, path: _text(record)}, stale)
    forget_failure(path)
    return record


def save_failure(run: Path, record: Record) -> None:
    """Write an unfinished record: in the cell's place, or beside a finished one, which stays. Raises RecordError."""
    path = path_of(run, record)
    if finished(path) is not None:
        files.write_together({failure_path(path): _text(record)})
    else:
        files.write_together({path: _text(record)}, [path_of(run, record, one) for one in (SCORES, PIXELS, MAPS)])


def forget_failure(path: Path) -> None:
    """Remove the failed attempt at the cell of a record's path, if there is one."""
    attempt = failure_path(path)
    try:
        if attempt.parent.is_dir():
            attempt.unlink(missing_ok=True)
            if not any(attempt.parent.iterdir()):
                attempt.parent.rmdir()
    except OSError as error:
        raise files.unwritable(attempt, error) from error


def load(path: Path) -> Record:
    """Read and check one record. Raises RecordError naming the file, Unreadable if it may not be read."""
    try:
        data = documents.read(path)
        if isinstance(data, dict) and data.get("format") not in READABLE:
            raise Malformed(f"its format is {str(data.get('format'))[:40]}; expected {FORMAT}")
        record = documents.build(Record, data)
        reading.check(record)
        reading.check_place(record, path, path.parent.parent if path.parent.name == FAILED else path.parent)
    except OSError as error:
        raise Unreadable(f"{path} cannot be read: {error.strerror or error}. Check who may read it.") from error
    except Malformed as error:
        raise RecordError(f"{path} is not a zsadbench record: {error}. Delete it and run the cell again.") from error
    return record


def finished(path: Path) -> Record | None:
    """Return the finished record at a path, None where there is none. Raises Unreadable."""
    if not path.exists():
        return None
    try:
        record = load(path)
    except Unreadable:
        raise
    except RecordError:
        return None
    return record if record.status == "done" else None


def folders(run: Path) -> list[Path]:
    """Return the folders with the records of a run: its own, or those of its seeds (`run --seeds`), by seed."""
    found = {path: re.fullmatch(r"seed-(-?\d+)", path.name) for path in run.glob("seed-*")}
    seeds = {int(match[1]): path for path, match in found.items() if match and places.read(run, path.name) is None}
    return [seeds[seed] for seed in sorted(seeds)] or [run]


def seed_folder(run: Path, seed: int) -> Path:
    """Return the folder with the records of one of several seeds."""
    return run / f"seed-{seed}"


def load_run(run: Path) -> list[Record]:
    """Read every record of a run folder, sorted by dataset, method and category; one that is damaged is a warning.

    A finished one to which a newer attempt failed says so in `failure`. Raises RecordError where nothing can be read.
    """
    records, problems = read_run(run)
    if problems and not records:
        raise RecordError(problems[0])
    for problem in problems:
        warnings.warn(f"a record is left out: {problem}", stacklevel=1)
    return records


def read_run(run: Path) -> tuple[list[Record], list[str]]:
    """Return the records of a run as `load_run`, and why others are left out. Raises RecordError for no folder."""
    if not run.is_dir():
        raise RecordError(f"{run} is not a run folder; expected the --out of an earlier `zsadbench run`.")
    if folders(run) != [run]:
        raise RecordError(
            f"{run} holds one run a seed, which `zsadbench table` shows together; expected one of them here, such as "
            f"{folders(run)[0]}."
        )
    problems: list[str] = []
    attempts = _readable(run.glob(f"*/*/{FAILED}/*.json"), problems)
    own = (path for path in sorted(run.glob("*/*/*.json")) if not places.is_note(path))  # of a run folder below this
    found = _readable(own, problems)
    for path in found.keys() & {path.parent.parent / path.name for path in attempts}:
        if found[path].status == "done":
            found[path] = replace(found[path], failure=attempts[failure_path(path)].reason)
    return list(found.values()), problems


def _readable(paths: Iterable[Path], problems: list[str]) -> dict[Path, Record]:
    """Read some records; why others cannot be read is added to `problems`."""
    found = {}
    for path in paths:
        try:
            found[path] = load(path)
        except RecordError as error:
            problems.append(str(error))
    return found


def read_beside(run: Path, record: Record, suffix: str) -> bytes:
    """Read a file that belongs to a record's numbers. Raises RecordError unless it is the one that was written."""
    path = path_of(run, record, suffix)
    try:
        with documents.open_file(path) as file:
            content = file.read()
    except OSError as error:
        problem = f"{path} cannot be read: {error.strerror or error}"
    except Malformed as error:
        problem = f"{path} cannot be read: {error}"
    else:
        if record.files.get(suffix) == _sha256(content):
            return content
        problem = f"{path} is not the file that was written with its record"
        if record.format < FORMAT:
            problem = f"{path} is of an earlier version of zsadbench, which did not tie it to its record"
    raise RecordError(f"{problem}. Run the cell again: `zsadbench run` with the same options does.")


def intact(run: Path, record: Record) -> bool:
    """Tell whether the files that belong to a finished record's numbers are those that were written with it."""
    try:
        for suffix in (SCORES, PIXELS) if PIXELS in record.files else (SCORES,):
            read_beside(run, record, suffix)
    except RecordError:
        return False
    return True


def encode_scores(scores: Sequence[ImageScore]) -> bytes:
    """Return the scores file of a cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(ImageScore._fields)
    writer.writerows((*line[:3], repr(float(line.score))) for line in scores)
    return text.getvalue().encode()


def load_scores(run: Path, record: Record) -> list[ImageScore]:
    """Read the per-image scores of a record. Raises RecordError."""
    content = read_beside(run, record, SCORES)
    try:
        return reading.scores(content)
    except Malformed as error:
        raise RecordError(
            f"{path_of(run, record, SCORES)} is not a scores file: {error}. Run the cell again."
        ) from error


def mean(values: Iterable[float | None]) -> tuple[float | None, int, int]:
    """Return (mean over the defined values, how many are defined, how many there are)."""
    values = list(values)
    defined = [value for value in values if value is not None]
    return (math.fsum(defined) / len(defined) if defined else None), len(defined), len(values)


def _text(record: Record) -> str:
    fields = asdict(record)
    del fields["failure"]
    return json.dumps(fields, indent=1, default=files.plain, allow_nan=False) + "\n"


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
