"""A paper's ablation table as a run: a study file names rows of options, and the published table that they mirror.

`results/README.md` explains the files in `results/studies/`. A row is a variant of its method (`support.variants`), and
a study is an ordinary run of them: rows share decoding and encoder passes, and resume is the runner's. `tables.study`
prints the result.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from zsadbench import datasets, methods
from zsadbench.data import contents
from zsadbench.errors import UsageError
from zsadbench.protocol import EvaluationProtocol
from zsadbench.records import published, results
from zsadbench.records.published import Number
from zsadbench.records.results import Record
from zsadbench.running import given, plan, targets
from zsadbench.running.planned import Plan, Resolved
from zsadbench.running.request import Request
from zsadbench.support import documents, options, preset_names, spelling, variants
from zsadbench.training import cross_dataset

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


@dataclass(frozen=True)
class Study:
    """A study file; the fields are explained in results/README.md."""

    path: Path
    title: str
    source: str  # file in results/published/; "": the study mirrors no printed table
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


class StudyJob(NamedTuple):
    """One row on one dataset: the cells of one variant."""

    row: StudyRow
    dataset: str  # name
    method: str  # full name of the variant; several rows may be one
    paper_encoder: str  # SPEC; "" where the method has none


@dataclass(frozen=True)
class StudyRun:
    """A study as one run, in which rows share what methods share."""

    study: Study
    request: Request
    jobs: tuple[StudyJob, ...]
    plan: Plan

    def records(self, job: StudyJob) -> list[Record]:
        """Read the records of a row's cells, those of an interrupted run left out. Raises RecordError."""
        cells = [cell.path(self.request.out) for group in self.plan.groups for cell in group]
        place = results.record_path(self.request.out, job.dataset, job.method, "any").parent
        own = sorted(path for path in {*self.plan.done, *cells} if path.parent == place)
        return [results.load(path) for path in own if path.exists()]


def folder() -> Path:
    """Return where the study files lie: in a wheel inside the package, in a checkout `results/studies/` beside it."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "study_data"
    return inside if inside.is_dir() else package.parent / "results" / "studies"


def available() -> list[Study]:
    """Read every shipped study, sorted by name; no method is imported. Raises UsageError naming file and field."""
    return [read(path) for path in sorted(folder().glob("*.toml"))]


def load(name: str) -> Study:
    """Read a study as `find` does, and check its rows. Raises UnknownName, UsageError."""
    study = find(name)
    check(study)
    return study


def find(name: str) -> Study:
    """Read a shipped study by name, or a study file by its path. Raises UnknownName, UsageError."""
    if name.endswith(".toml"):
        path = Path(name)
    else:
        known = {path.stem: path for path in folder().glob("*.toml")}
        path = known[spelling.match("study", name, known)]
    return read(path)


def read(path: Path) -> Study:
    """Read a study file. Raises UsageError naming file and field."""
    try:
        with documents.open_file(path) as file:
            data = tomllib.load(file)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} is not a study file: {error}.") from error
    required = {"title": str, "dataset": str, "rows": list}
    _check_fields(str(path), data, required, {"published": dict, "level": str, "protocol": dict, "notes": str})
    mirrored = data.get("published", {})
    if "published" in data:
        _check_fields(f"{path}, published", mirrored, {"source": str, "table": str, "method": str}, {})
    if data.get("level", "dataset") not in LEVELS:
        raise UsageError(f"{path}: level is {data['level']!r}; expected one of {', '.join(LEVELS)}.")
    rows = tuple(_row(path, number, row, data["dataset"]) for number, row in enumerate(data["rows"], start=1))
    if len({row.label for row in rows}) < len(rows):
        raise UsageError(f"{path}: two rows have the same label; expected labels that differ.")
    if not mirrored and any(row.variant is not None for row in rows):
        raise UsageError(f"{path}: a row has a variant, which names published numbers; expected [published] as well.")
    return Study(
        path,
        data["title"],
        mirrored.get("source", ""),
        mirrored.get("table", ""),
        mirrored.get("method", ""),
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


def make_run(study: Study, request: Request, progress: contents.Progress | None = None) -> StudyRun:
    """Plan every row, before anything runs; `progress` is told while files are read.

    `request` holds what all rows share. Without datasets in it, every row runs on the paper's; on a dataset that some
    rows are written for those run, on any other all of them. Its encoder replaces the rows',
    and elsewhere than in the paper a trained preset gives way to the one that suits the dataset. Raises as `make_plan`.
    """
    placed = _placed(study, request.datasets)
    request = replace(
        request,
        methods=tuple(dict.fromkeys(name(row, datasets.name_of(one), request.encoder) for row, one in placed)),
        datasets=tuple(dict.fromkeys(dataset for _, dataset in placed)),
        protocol=options.override(request.protocol, study.protocol, f"{study.path}, protocol"),
    )
    sets = targets.sets(request)
    suited: dict[str, dict[str, Any]] = {dataset.name: {} for dataset in sets}
    jobs = []
    for row, dataset in placed:
        target = datasets.name_of(dataset)
        called = name(row, target, request.encoder)
        suited[target] |= plan.suited([called], target, request)
        jobs.append(StudyJob(row, target, called, getattr(_configure(study, row), "encoder", "")))
    resolved = Resolved(sets, suited)
    given.check(request, resolved.chosen, sets)
    return StudyRun(study, request, tuple(jobs), plan.plan_cells(request, resolved, progress=progress))


def name(row: StudyRow, dataset: str, encoder: str | None = None) -> str:
    """Return the full name of the variant that a row is on a dataset; `encoder` replaces the row's own for a run."""
    own = {"encoder": row.encoder} if row.encoder is not None and encoder is None else {}
    asked = variants.join(suited(row, dataset), own | dict(row.options))
    return methods.lookup(cross_dataset.suited(asked, dataset))[1]


def earlier(study: Study, folder: Path) -> list[str]:
    """Return the folders below a study's run folder that rows of versions before 0.2 lie in."""
    labels = (re.sub(r"[^a-z0-9.+]+", "-", row.label.lower()).strip("-.") for row in study.rows)
    return [label for label in labels if (folder / label).is_dir()]


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
