"""Records to table rows: what may share a table, means over categories, ranks. `zsadbench.tables` prints the rows.

A mean is unweighted, over the categories where the metric is defined. Ranks compare unrounded values of rows that have
the same setting (a few-shot row never beats a zero-shot one) and whose metric covers the same categories; a row whose
checkpoint leaked has no rank.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

from zsadbench import metrics
from zsadbench.analysis import comparable
from zsadbench.analysis.comparable import NOTHING, Published
from zsadbench.datasets import DatasetCard
from zsadbench.errors import RecordError
from zsadbench.metrics import Column
from zsadbench.protocol import FREE_FIELDS
from zsadbench.records.published import Key, Library
from zsadbench.records.results import MEAN, Record, Status, mean
from zsadbench.support import variants

Level = Literal["dataset", "category"]
SCOPES = {"image": "", "batch": ", batch", "category": ", transductive"}  # what setting.scope adds to "0-shot"
ENCODER_FIELDS = ("spec", "size", "activation", "pos_embed", "precision", "sha256")


@dataclass(frozen=True)
class Value:
    """One number of a table."""

    percent: float | None  # unrounded; None: undefined
    covered: frozenset[str]  # categories where the metric is defined
    published: Published = NOTHING
    rank: int = 0  # 1 best, 2 second, 0 neither
    interval: tuple[float, float] | None = None  # percent; of --ci (`zsadbench.analysis.intervals`)
    deviation: float | None = None  # percent points over seeds; of --seeds (`zsadbench.analysis.seeds`)
    seeds: int = 1  # runs that `percent` is the mean of


class Name(NamedTuple):
    """What a row is called."""

    cli: str
    title: str


@dataclass(frozen=True)
class Line:
    """One row: a method on a dataset, or on one category of it."""

    name: Name
    category: str = MEAN
    scope: str = "image"  # what maps depend on
    image_scope: str = "image"  # what image scores depend on
    shots: int = 0
    trained_on: str = ""  # "" for training-free methods
    leak: bool = False
    status: Status = "done"  # otherwise there are no values
    done: frozenset[str] = frozenset()  # categories that have results
    total: int = 1  # categories that the dataset has
    values: Mapping[Column, Value] = field(default_factory=dict)
    varied: tuple[str, ...] | None = None  # what --seeds found that the seed drew anew in each run; None: other tables

    @property
    def setting(self) -> str:
        """Return "0-shot", "1-shot, batch" and the like; "" where nothing is done.

        What image scores are scaled over does not set a method apart, as in papers; tables mark it.
        """
        return setting_name(self.scope, self.shots) if self.status == "done" else ""

    @property
    def order(self) -> tuple[Any, ...]:
        """Return the sort key: the mean last; rows without values last; then setting and title."""
        place = (self.category == MEAN, self.category, self.status != "done")
        return *place, list(SCOPES).index(self.scope), self.shots, self.name.title.lower(), self.name.cli


@dataclass(frozen=True)
class Table:
    """The rows of one dataset, sorted."""

    dataset: str
    title: str
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]


def setting_name(scope: str, shots: int) -> str:
    """Return what methods of a scope with so many shots are ranked under."""
    return f"{shots}-shot{SCOPES[scope]}"


def setting_of(record: Record) -> str:
    """Return the setting of a finished record."""
    return setting_name(record.setting.get("scope", "image"), record.setting.get("shots", 0))


def place_of_setting(record: Record) -> tuple[int, int]:
    """Return where the setting of a finished record stands among others."""
    return list(SCOPES).index(record.setting.get("scope", "image")), record.setting.get("shots", 0)


def image_scope(record: Record) -> str:
    """Return what a record's image scores depend on; where it does not tell, on what its maps do."""
    scope: str = record.setting.get("image_scope") or record.setting.get("scope", "image")
    return scope


def arrange(
    records: Sequence[Record], level: Level, cards: Mapping[str, DatasetCard], library: Library | None
) -> list[Table]:
    """Return one table per dataset, in the order of the records. Raises RecordError if they must not share a table."""
    check_protocols(records)
    columns, names = _columns(records), name_methods(records)
    tables = []
    for dataset in dict.fromkeys(record.dataset for record in records):
        of_dataset = [record for record in records if record.dataset == dataset]
        card = cards.get(dataset)
        known = frozenset(card.expected if card else ()) | {record.category for record in of_dataset}
        lines = [
            line
            for group in _methods(of_dataset)
            for line in _lines(group, names[identity(group[0])], columns, known, level, library, card)
        ]
        tables.append(Table(dataset, card.title if card else dataset, columns, rank(lines)))
    return tables


def settle(records: Iterable[Record]) -> list[Record]:
    """Return the records without unfinished ones of a cell that another run has finished."""
    records = list(records)
    finished = {_cell(record) for record in records if record.status == "done"}
    return [record for record in records if record.status == "done" or _cell(record) not in finished]


def check_protocols(records: Iterable[Record]) -> None:
    """Raise RecordError naming the fields and two cells when finished records differ in protocol or images."""
    done = [record for record in records if record.status == "done"]
    samples: dict[tuple[str, str], Record] = {}
    for record in done:
        first, same = done[0], samples.setdefault((record.dataset, record.category), record)
        fields = sorted({*first.protocol, *record.protocol} - FREE_FIELDS)
        different = [name for name in fields if first.protocol.get(name) != record.protocol.get(name)]
        if different:
            told = "; ".join(
                f"{name} is {first.protocol.get(name)!r} and {record.protocol.get(name)!r}" for name in different
            )
            advice = "Print the runs apart, or run one of them again with the other's protocol."
            if different == ["seed"]:
                advice = (
                    "Add --seeds (`zsadbench table ... --seeds`) for means and deviations, or print the runs apart."
                )
            raise RecordError(
                f"results of two protocols must not share a table. {_cell(first)} and {_cell(record)} differ: {told}. "
                f"{advice}"
            )
        if same.data.get("sha256") != record.data.get("sha256"):
            raise RecordError(
                f"{_cell(same)} and {_cell(record)} saw different images (data.sha256 differs); "
                "run one of them again on the other's copy of the dataset."
            )


def identity(record: Record) -> tuple[str, str]:
    """Return what makes one row: the method and, for a finished cell, its encoder, options, scopes and shots."""
    return record.method, json.dumps(_facts(record), sort_keys=True, default=str)


def name_methods(records: Iterable[Record]) -> dict[tuple[str, str], Name]:
    """Name every row: the title and the preset, and the facts that differ where one method has several rows."""
    found = {identity(record): record for record in records}
    names = {}
    for key, record in found.items():
        rivals = [_facts(other) for other in found.values() if other.method == record.method and other.status == "done"]
        facts = _facts(record)
        different = [name for name in facts if any(rival.get(name) != facts[name] for rival in rivals)]
        suffix = f" [{', '.join(f'{name}={_short(facts[name])}' for name in different)}]" if different else ""
        title = titled(record.method, record.title)
        names[key] = Name(record.method + suffix, title + suffix)
    return names


def titled(method: str, title: str) -> str:
    """Return how a row is called: the printed name of its method, with the preset and the options of a variant."""
    preset, options = variants.preset_of(method), variants.suffix_of(method)
    text = f"{title or variants.stem_of(method)} ({preset})" if preset else title or variants.stem_of(method)
    return f"{text} {options}" if options else text


def _facts(record: Record) -> dict[str, Any]:
    if record.status != "done":
        return {}
    facts = {name: record.encoder.get(name) for name in ENCODER_FIELDS} | record.options
    return facts | facts_of_setting(record)


def facts_of_setting(record: Record) -> dict[str, Any]:
    """Return what rows of one method may differ in beside its options and encoder."""
    scope, shots = (record.setting.get(name) for name in ("scope", "shots"))
    return {"scope": scope, "image_scope": image_scope(record), "shots": shots}


def _short(value: Any) -> str:
    text = str(value)
    return text[:8] if len(text) == 64 else text  # a sha256 is told apart by its beginning


def _cell(record: Record) -> str:
    return f"{record.method} on {record.dataset}/{record.category}"


def _columns(records: Iterable[Record]) -> tuple[Column, ...]:
    """Return the columns of every paper, then metrics that only these records have."""
    known = metrics.columns()
    found = {(level, metric) for record in records for level in metrics.LEVELS for metric in getattr(record, level)}
    return tuple(
        column for level in metrics.LEVELS for column in (*known, *sorted(found - {*known})) if column[0] == level
    )


def _methods(records: Iterable[Record]) -> Iterator[list[Record]]:
    """Yield the records of each row of one dataset: finished ones, or all of a method that has none."""
    records = list(records)
    finished = {record.method for record in records if record.status == "done"}
    groups: dict[tuple[str, str], dict[str, Record]] = {}
    for record in records:
        if record.status != "done" and record.method in finished:
            continue
        group = groups.setdefault(identity(record), {})
        other = group.setdefault(record.category, record)
        if (other.image, other.pixel) != (record.image, record.pixel):
            raise RecordError(f"{_cell(record)} stands twice, with different numbers; print the two runs apart.")
    for group in groups.values():
        yield list(group.values())


def _lines(
    group: list[Record],
    name: Name,
    columns: tuple[Column, ...],
    known: frozenset[str],
    level: Level,
    library: Library | None,
    card: DatasetCard | None,
) -> Iterator[Line]:
    """Yield the rows of one method on one dataset: its categories if asked for, then the mean."""
    if group[0].status != "done":
        statuses = {record.status for record in group}
        yield Line(name, status=statuses.pop() if len(statuses) == 1 else "failed", total=len(known))
        return
    for record in group if level == "category" else ():
        yield _line([record], name, columns, record.category, 1, library, card)
    yield _line(group, name, columns, MEAN, len(known), library, card)


def _line(
    records: list[Record],
    name: Name,
    columns: tuple[Column, ...],
    category: str,
    total: int,
    library: Library | None,
    card: DatasetCard | None,
) -> Line:
    first = records[0]
    trained_on = _trained_on(records)
    line = Line(
        name,
        category,
        scope=first.setting.get("scope", "image"),
        image_scope=image_scope(first),
        shots=first.setting.get("shots", 0),
        trained_on="unknown" if trained_on is None else ", ".join(sorted(trained_on)),
        leak=any(record.setting.get("leak", False) for record in records),
        done=frozenset(record.category for record in records),
        total=total,
    )
    complete = len(line.done) == total  # else the published mean is another mean
    values = {}
    for column in columns:
        measured = {record.category: getattr(record, column[0]).get(column[1]) for record in records}
        average, _, _ = mean(measured.values())
        published = NOTHING
        if library is not None and complete:
            spec = first.encoder.get("spec") or ""
            key = Key(variants.base_of(first.method), spec, line.shots, trained_on, first.dataset, category, *column)
            published = comparable.published(key, records, library, card)
        covered = frozenset(place for place, value in measured.items() if value is not None)
        values[column] = Value(None if average is None else 100 * average, covered, published)
    return replace(line, values=values)


def _trained_on(records: Iterable[Record]) -> frozenset[str] | None:
    """Return the training sets, empty for training-free methods, None where a checkpoint does not tell."""
    sets = [record.setting.get("trained_on", []) for record in records]
    return None if None in sets else frozenset().union(*sets)


def rank(lines: Iterable[Line]) -> tuple[Line, ...]:
    """Return the lines sorted, with ranks 1 and 2 set among comparable ones; equal values share a rank."""
    lines = sorted(lines, key=lambda line: line.order)
    groups: dict[tuple[str, str], list[Line]] = {}
    for line in lines:
        groups.setdefault((line.category, line.setting), []).append(line)
    return tuple(
        _ranked(line, [rival for rival in groups[line.category, line.setting] if not rival.leak]) for line in lines
    )


def _ranked(line: Line, rivals: Sequence[Line]) -> Line:
    if line.leak:
        return line
    values = {}
    for column, value in line.values.items():
        others = [rival.values[column] for rival in rivals]
        everything = frozenset().union(*(other.covered for other in others))
        comparable = [other.percent for other in others if other.percent is not None and other.covered == everything]
        best = sorted(set(comparable), reverse=metrics.get(column[1]).higher_is_better)[:2]
        if len(comparable) > 1 and value.covered == everything and value.percent is not None and value.percent in best:
            value = replace(value, rank=best.index(value.percent) + 1)
        values[column] = value
    return replace(line, values=values)
