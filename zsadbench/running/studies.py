"""A paper's ablation table as a run: a study file names rows of options, and the published table that they mirror.

`results/README.md` explains the files in `results/studies/`. A row is an ordinary run of one method in a folder of its
own, so that rows that differ in options alone never overwrite each other, and resume is the runner's. `study_tables`
prints the result.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zsadbench import datasets, methods
from zsadbench.data import contents
from zsadbench.errors import UnknownName, UsageError
from zsadbench.protocol import EvaluationProtocol
from zsadbench.records import published, results
from zsadbench.records.published import Number
from zsadbench.records.results import Record
from zsadbench.running import given, plan
from zsadbench.running.plan import Plan
from zsadbench.running.request import Request
from zsadbench.support import options, preset_names
from zsadbench.training import cross_dataset

if TYPE_CHECKING:
    from zsadbench.running.progress import Progress

LEVELS = ("dataset", "category")


@dataclass(frozen=True)
class StudyRow:
    """One row of a study: a method with changed options, and the published row that it re-runs."""

    label: str
    method: str  # CLI name, with its preset
    dataset: str  # that the paper used
    encoder: str | None  # SPEC that the paper used; None: the method's own
    options: Mapping[str, str]  # option -> value, as --set takes it
    variant: str | None  # of the published numbers; None: the paper prints no such row

    @property
    def folder(self) -> str:
        """Return the name of the row's run folder."""
        return re.sub(r"[^a-z0-9.+]+", "-", self.label.lower()).strip("-.")


@dataclass(frozen=True)
class Study:
    """A study file; the fields are explained in results/README.md."""

    path: Path
    title: str
    source: str  # file in results/published/
    table: str  # in the source
    printed_method: str  # the published numbers' method
    level: str  # "category": one line a category, else the dataset's mean alone
    protocol: Mapping[str, str]  # what the paper did otherwise than zsadbench's protocol
    notes: str
    rows: tuple[StudyRow, ...]

    @property
    def name(self) -> str:
        """Return the CLI name."""
        return self.path.stem


@dataclass(frozen=True)
class StudyJob:
    """One row on one dataset: what is asked of the runner, and the cells that come of it."""

    row: StudyRow
    paper_encoder: str  # SPEC; "" where the method has none
    request: Request
    plan: Plan

    def records(self) -> list[Record]:
        """Read the records of the job's cells, those of an interrupted run left out. Raises RecordError."""
        cells = [cell for group in self.plan.groups for cell in group]
        paths = {
            *self.plan.done,
            *(cell.path(self.request.out) for cell in cells),
        }
        return [results.load(path) for path in sorted(paths) if path.exists()]


def folder() -> Path:
    """Return where the study files lie: in a wheel inside the package, in a checkout `results/studies/` beside it."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "study_data"
    return inside if inside.is_dir() else package.parent / "results" / "studies"


def available() -> list[Study]:
    """Read every shipped study, sorted by name; no method is imported. Raises UsageError naming file and field."""
    return [read(path) for path in sorted(folder().glob("*.toml"))]


def load(name: str) -> Study:
    """Read a shipped study by name, or a study file by its path, and check its rows. Raises UnknownName, UsageError."""
    if name.endswith(".toml"):
        path = Path(name)
    else:
        known = {path.stem: path for path in folder().glob("*.toml")}
        if name not in known:
            raise UnknownName("study", name, known)
        path = known[name]
    study = read(path)
    check(study)
    return study


def read(path: Path) -> Study:
    """Read a study file. Raises UsageError naming file and field."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} is not a study file: {error}.") from error
    required = {"title": str, "dataset": str, "published": dict, "rows": list}
    _check_fields(str(path), data, required, {"level": str, "protocol": dict, "notes": str})
    mirrored = data["published"]
    _check_fields(f"{path}, published", mirrored, {"source": str, "table": str, "method": str}, {})
    if data.get("level", "dataset") not in LEVELS:
        raise UsageError(f"{path}: level is {data['level']!r}; expected one of {', '.join(LEVELS)}.")
    rows = tuple(_row(path, number, row, data["dataset"]) for number, row in enumerate(data["rows"], start=1))
    if len({row.folder for row in rows}) < len(rows):
        raise UsageError(f"{path}: two rows have the same label; expected labels that differ in letters and digits.")
    return Study(
        path,
        data["title"],
        mirrored["source"],
        mirrored["table"],
        mirrored["method"],
        data.get("level", "dataset"),
        _texts(data.get("protocol", {})),
        " ".join(data.get("notes", "").split()),
        rows,
    )


def check(study: Study) -> None:
    """Raise UsageError naming file and row for an unknown method or option, a wrong value, or unknown numbers."""
    options.override(EvaluationProtocol(), study.protocol, f"{study.path}, protocol")
    numbers = published.load()
    for row in study.rows:
        _configure(study, row)
        if row.variant is not None and not printed(study, row, numbers):
            raise UsageError(
                f"{study.path}, row {row.label!r}: {study.source}.csv has no number of table {study.table}, method "
                f"{study.printed_method}, variant {row.variant!r} and dataset {row.dataset}; check the spelling."
            )


def printed(study: Study, row: StudyRow, numbers: Iterable[Number]) -> list[Number]:
    """Return the published numbers of a row, of all its categories and metrics, without suspect ones."""
    if row.variant is None:
        return []
    place = study.source, study.table, study.printed_method, row.variant, row.dataset
    return [
        number
        for number in numbers
        if (number.source, number.table, number.method, number.variant, number.dataset) == place
        and number.level in ("image", "pixel")
        and not number.suspect
    ]


def make_jobs(study: Study, request: Request, progress: contents.Progress | None = None) -> list[StudyJob]:
    """Plan every row, before anything runs; `progress` is told while files are read.

    `request` holds what all rows share. Without datasets in it, every row runs on the paper's; on a dataset that some
    rows are written for those run, on any other all of them. Its encoder replaces the rows',
    and elsewhere than in the paper a trained preset gives way to the one that suits the dataset. Raises as `make_plan`.
    """
    rows = []
    for row, dataset in _placed(study, request.datasets):
        own = replace(
            request,
            methods=(suited(row, datasets.name_of(dataset)),),
            datasets=(dataset,),
            out=request.out / row.folder,
            encoder=request.encoder or row.encoder,
            changes={row.method.partition(".")[0]: row.options},
            protocol=options.override(request.protocol, study.protocol, f"{study.path}, protocol"),
        )
        rows.append((row, own, plan.resolve(own)))
    chosen = [one for _, _, resolved in rows for one in resolved.chosen]
    given.check(request, chosen, [dataset for _, _, resolved in rows for dataset in resolved.sets])
    return [
        StudyJob(
            row, getattr(_configure(study, row), "encoder", ""), own, plan.plan_cells(own, resolved, None, progress)
        )
        for row, own, resolved in rows
    ]


def train_missing(jobs: Sequence[StudyJob], train: Callable[[Plan, Request], Plan]) -> list[StudyJob]:
    """Train what rows lack and return the jobs with their new plans; `train` does it for one row.

    A row is planned again just before, because an earlier one may have trained the same.
    """
    ready = []
    for job in jobs:
        if job.plan.trainings:
            job = replace(job, plan=train(plan.plan_cells(job.request, plan.resolve(job.request)), job.request))
        ready.append(job)
    return ready


def run(jobs: Sequence[StudyJob], progress: Progress) -> int:
    """Run the cells that are missing, row by row; returns how many failed. Raises RecordError as the runner."""
    from zsadbench.running import runner

    return sum(runner.run(job.plan, job.request, progress).failed for job in jobs if job.plan.cells)


def suited(row: StudyRow, dataset: str) -> str:
    """Return the CLI name that a row runs under on a dataset.

    Where its preset was trained on another dataset than the cross-dataset rule asks for, that is the family or method.
    """
    method, full, config = methods.lookup(row.method)
    trained_on = getattr(config, "trained_on", "")
    if dataset == row.dataset or trained_on in ("", cross_dataset.auxiliary(dataset)):
        return row.method
    return preset_names.aliases(method.presets, full)[1]


def _placed(study: Study, given: Sequence[str]) -> list[tuple[StudyRow, str]]:
    """Return which row runs on which dataset, rows first."""
    if not given:
        return [(row, row.dataset) for row in study.rows]
    meant = {row.dataset for row in study.rows}
    names = {dataset: datasets.name_of(dataset) for dataset in given}
    return [
        (row, dataset)
        for row in study.rows
        for dataset, name in names.items()
        if name in (row.dataset, *({name} - meant))
    ]


def _configure(study: Study, row: StudyRow) -> Any:
    """Return a row's options as the paper's run has them. Raises UsageError naming file and row."""
    try:
        return methods.configure(row.method, row.encoder, row.options)[2]
    except UsageError as error:
        raise UsageError(f"{study.path}, row {row.label!r}: {error}") from error


def _row(path: Path, number: int, data: Any, dataset: str) -> StudyRow:
    if not isinstance(data, dict):
        raise UsageError(f"{path}, row {number}: got {data!r}; expected a [[rows]] table.")
    place = f"{path}, row {data.get('label', number)!r}"
    optional = {"dataset": str, "encoder": str, "options": dict, "variant": str}
    _check_fields(place, data, {"label": str, "method": str}, optional)
    return StudyRow(
        data["label"],
        data["method"],
        data.get("dataset", dataset),
        data.get("encoder"),
        _texts(data.get("options", {})),
        data.get("variant"),
    )


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    """Return values as --set takes them, so that they are checked in the same way."""
    return {
        name: ",".join(map(str, value)) if isinstance(value, list) else str(value) for name, value in values.items()
    }


def _check_fields(place: str, data: Mapping[str, Any], required: Mapping[str, type], more: Mapping[str, type]) -> None:
    """Raise UsageError for a field that is missing, unknown or of the wrong type."""
    known = {**required, **more}
    for name in data:
        if name not in known:
            raise UsageError(f"{place}: unknown field {name!r}; expected {', '.join(known)}.")
    for name, kind in known.items():
        if name in required and name not in data:
            raise UsageError(f"{place}: the field {name!r} is missing; expected {', '.join(required)}.")
        if name in data and not isinstance(data[name], kind):
            raise UsageError(f"{place}: {name} is {data[name]!r}; expected a TOML {_TOML[kind]}.")


_TOML: dict[type, str] = {str: "string", dict: "table", list: "array of tables"}
