"""Numbers that papers printed, read from `results/published/`, and which of them stand beside a measured number.

`analysis/comparable.py` sets them there. `results/README.md` explains the files; a paper is added by writing files
there, and nothing here names a paper or a method.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from zsadbench import metrics
from zsadbench.errors import RecordError
from zsadbench.records.results import MEAN

EFFICIENCY = ("params_m", "train_memory_gb", "epoch_time_min", "latency_ms")  # metrics that are no percentages
UNKNOWN = frozenset({"unknown"})  # training sets of a number whose source names none


class Number(NamedTuple):
    """One printed number; the fields after `source` are the columns of `SOURCE.csv`."""

    source: str  # the file's stem, listed in sources.csv
    table: str  # number or name of the table in the source; "" where it is not known
    row_label: str  # as printed
    method: str
    variant: str  # "" is the configuration that the method's own paper calls its own
    backbone: str
    resolution: int | None  # input side in pixels
    trained_on: frozenset[str]  # empty: training-free; {"unknown"}: trained, the source does not say on what
    shots: int | None  # normal reference images per category; None for efficiency numbers
    dataset: str  # zsadbench's name with variant; avg_*: a mean over datasets
    category: str  # MEAN, in the file "mean", is the dataset; "" where no dataset is named
    level: str
    metric: str
    value: float  # percent; efficiency: the metric's own unit
    suspect: bool  # contradicts another source or itself (see note): never put beside a measured number
    note: str


class Join(NamedTuple):
    """A line of joins.csv: where the published numbers of a zsadbench method stand."""

    zsadbench: str  # CLI name with preset
    encoder: str  # beginning of the encoder SPEC that the numbers hold for; "" is any
    dataset: str  # datasets that the paper used the preset on, joined by "+"; "" is any
    source: str
    table: str
    method: str
    variant: str
    differs: str  # what is known to differ between the preset and the printed configuration, in words; "": nothing

    def is_for(self, dataset: str) -> bool:
        """Tell whether the paper used the preset on a dataset."""
        return not self.dataset or dataset in self.dataset.split("+")


class Found(NamedTuple):
    """A published number that answers a key, and what its line of joins.csv says."""

    number: Number
    differs: str


class Key(NamedTuple):
    """What a measured number measures; `Library.find` looks for the same among the published ones."""

    method: str  # CLI name with preset
    encoder: str  # SPEC, "" for none
    shots: int
    trained_on: frozenset[str] | None  # empty: training-free; None: unknown
    dataset: str
    category: str  # MEAN for the dataset
    level: str
    metric: str


def folder() -> Path:
    """Return where the files lie: in a wheel inside the package, in a checkout `results/published/` beside it."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "published_data"
    return inside if inside.is_dir() else package.parent / "results" / "published"


def load(where: Path | None = None) -> list[Number]:
    """Read and check every published number, sorted as the files are. Raises RecordError naming file and line."""
    where = where or folder()
    sources = citations(where)
    for path in sorted(where.glob("*.csv")):
        if path.stem not in (*sources, "sources", "joins", "presets"):
            raise RecordError(f"{path} is not in sources.csv; add a line {path.stem},<citation>,<how it was read>.")
    return [number for source in sources for number in _load_source(where / f"{source}.csv")]


def citations(where: Path | None = None) -> dict[str, str]:
    """Return source -> citation from sources.csv. Raises RecordError."""
    path = (where or folder()) / "sources.csv"
    return {row["source"]: row["citation"] for _, row in _rows(path, ("source", "citation", "access"))}


def load_joins(where: Path | None = None) -> list[Join]:
    """Read joins.csv; the first line that has a number wins. Raises RecordError."""
    return [Join(**row) for _, row in _rows((where or folder()) / "joins.csv", Join._fields)]


@cache
def presets(where: Path | None = None) -> dict[tuple[str, str], str]:
    """Read presets.csv: (method, dataset) -> the method with the preset that its paper used there. Raises RecordError.

    A method that does not stand there is the same on every dataset.
    """
    rows = _rows((where or folder()) / "presets.csv", ("method", "dataset", "preset"))
    return {(row["method"], dataset): row["preset"] for _, row in rows for dataset in row["dataset"].split("+")}


@dataclass(frozen=True)
class Library:
    """Published numbers, indexed so that one can be put beside a measured number."""

    numbers: dict[tuple[str, ...], list[Number]]  # (source, table, method, variant, dataset, category, level, metric)
    joins: dict[str, list[Join]]
    citations: dict[str, str]

    @classmethod
    def read(cls, where: Path | None = None) -> Library:
        """Read the published numbers. Raises RecordError, also for a join that no number fits."""
        numbers: dict[tuple[str, ...], list[Number]] = {}
        for number in load(where):
            numbers.setdefault(_place(number) + _subject(number), []).append(number)
        joins: dict[str, list[Join]] = {}
        places = {key[:4] for key in numbers}
        for line, join in enumerate(load_joins(where), start=2):
            if _place(join) not in places:
                told = f"{(where or folder()) / 'joins.csv'}, line {line}"
                raise RecordError(
                    f"{told}: no number has source, table, method, variant {_place(join)}; check the spelling."
                )
            joins.setdefault(join.zsadbench, []).append(join)
        return cls(numbers, joins, citations(where))

    def find(self, key: Key) -> Found | None:
        """Return the published number of the same method, setting, training set and data; None where there is none.

        An unknown training set fits where the join says that the configuration differs anyway.
        """
        for join in self.joins.get(key.method, ()):
            if not key.encoder.startswith(join.encoder) or not join.is_for(key.dataset):
                continue
            for number in self.numbers.get(_place(join) + _subject(key), ()):
                alike = number.trained_on == key.trained_on or (join.differs and number.trained_on == UNKNOWN)
                if alike and number.shots == key.shots and not number.suspect:
                    return Found(number, join.differs)
        return None

    def efficiency(self, method: str, encoder: str, size: int | None, metric: str) -> Found | None:
        """Return a published efficiency of the same method, encoder SPEC and input size; None where there is none."""
        for join in self.joins.get(method, ()):
            if not encoder.startswith(join.encoder):
                continue
            for key, numbers in self.numbers.items():
                if key[:4] == _place(join) and key[-2:] == ("efficiency", metric):
                    fitting = (n for n in numbers if not n.suspect and n.resolution in (None, size))
                    return next((Found(number, join.differs) for number in fitting), None)
        return None


def _place(row: Number | Join) -> tuple[str, ...]:
    return row.source, row.table, row.method, row.variant


def _subject(row: Number | Key) -> tuple[str, ...]:
    return row.dataset, row.category, row.level, row.metric


def _load_source(path: Path) -> list[Number]:
    seen: dict[tuple[object, ...], tuple[int, float]] = {}
    numbers = []
    for line, row in _rows(path, Number._fields[1:]):
        number = _parse(path, line, row)
        identity = (*_place(number), *_subject(number), number.shots, number.trained_on)
        if identity in seen:
            first, value = seen[identity]
            raise RecordError(
                f"{path}, line {line}: the number of line {first} ({value:g}) stands here again ({number.value:g}); "
                "keep one, or tell them apart by table or variant."
            )
        seen[identity] = line, number.value
        numbers.append(number)
    return numbers


def _parse(path: Path, line: int, row: dict[str, str]) -> Number:
    place = f"{path}, line {line}"
    level, metric = row["level"], row["metric"]
    if level not in (*metrics.LEVELS, "efficiency"):
        raise RecordError(f"{place}: level is {level!r}; expected one of {', '.join(metrics.LEVELS)}, efficiency.")
    known = EFFICIENCY if level == "efficiency" else metrics.names(level)
    if metric not in known:
        raise RecordError(f"{place}: metric is {metric!r}; expected one of {', '.join(known)} at level {level}.")
    if row["suspect"] not in ("", "yes"):
        raise RecordError(f"{place}: suspect is {row['suspect']!r}; expected yes or nothing.")
    limit = math.inf if level == "efficiency" else 100.0
    value = _number(place, "value", row["value"])
    if not 0 <= value <= limit or math.isinf(value):
        expected = "at least 0" if level == "efficiency" else "a percentage, 0..100"
        raise RecordError(f"{place}: value is {row['value']}; expected {expected}.")
    return Number(
        source=path.stem,
        **{name: row[name] for name in ("table", "row_label", "method", "variant", "backbone", "dataset", "note")},
        category=MEAN if row["category"] == "mean" else row["category"],
        resolution=_integer(place, "resolution", row["resolution"]),
        trained_on=frozenset(row["trained_on"].split("+")) - {""},
        shots=_integer(place, "shots", row["shots"]),
        level=level,
        metric=metric,
        value=value,
        suspect=row["suspect"] == "yes",
    )


def _number(place: str, name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise RecordError(f"{place}: {name} is {text!r}; expected a number.") from None


def _integer(place: str, name: str, text: str) -> int | None:
    if text and not text.isdecimal():
        raise RecordError(f"{place}: {name} is {text!r}; expected a whole number or nothing.")
    return int(text) if text else None


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line, row) of a CSV file whose header is exactly `columns`."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) != columns:
                raise RecordError(f"{path}, line 1: the columns are {reader.fieldnames}; expected {','.join(columns)}.")
            for row in reader:
                if None in row or None in row.values():
                    raise RecordError(
                        f"{path}, line {reader.line_num}: expected {len(columns)} values, like the header."
                    )
                yield reader.line_num, row
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"{path} cannot be read: {error}. Restore it from the repository.") from error
