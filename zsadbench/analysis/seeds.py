"""Runs that differ in their seed alone, as rows of means and sample standard deviations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean, stdev

from zsadbench.analysis.rows import Level, Line, Table, Value, arrange, check_protocols, rank
from zsadbench.datasets import DatasetCard
from zsadbench.errors import RecordError
from zsadbench.records.published import Library
from zsadbench.records.results import Record


def over_seeds(
    records: Sequence[Record], level: Level, cards: Mapping[str, DatasetCard], library: Library | None
) -> list[Table]:
    """Return one table per dataset, as `rows.arrange` does, each value a mean over the seeds of the records.

    The seed of the protocol draws image orders, references and, where `run` trained it, the checkpoint. Raises
    RecordError when there is one seed alone, when anything else differs, or when seeds cover different categories.
    """
    finished: dict[int, list[Record]] = {}
    for record in records:
        if record.status == "done":
            finished.setdefault(record.protocol.get("seed", 0), []).append(record)
    if len(finished) < 2:
        raise RecordError(
            f"--seeds got runs of {len(finished)} seed; expected two or more. "
            "Run again with another --seed and --out, and name all run folders."
        )
    check_protocols(  # within a seed `arrange` checks the rest
        replace(found[0], protocol=found[0].protocol | {"seed": None}, data={}) for found in finished.values()
    )
    unfinished = [record for record in records if record.status != "done"]
    lines: dict[str, dict[tuple[str, str], list[Line]]] = {}
    tables: dict[str, Table] = {}
    for found in finished.values():
        for table in arrange([*found, *unfinished], level, cards, library):
            tables.setdefault(table.dataset, table)
            for line in table.lines:
                lines.setdefault(table.dataset, {}).setdefault((line.name.cli, line.category), []).append(line)
    return [
        replace(table, lines=rank(_merge(table.dataset, runs) for runs in lines[dataset].values()))
        for dataset, table in tables.items()
    ]


def _merge(dataset: str, runs: Sequence[Line]) -> Line:
    """Return one row of the rows that a method has in each seed's table."""
    done = [line for line in runs if line.status == "done"]
    if not done:
        return runs[0]
    first = done[0]
    values = {}
    for column in first.values:
        found = [line.values[column] for line in done]
        if any(value.covered != found[0].covered for value in found):
            raise RecordError(
                f"{first.name.cli} on {dataset} has {' '.join(column)} for other categories with one seed than with "
                "another, so their means cannot be compared; finish the runs first."
            )
        values[column] = _mean(found)
    return replace(first, values=values)


def _mean(found: Sequence[Value]) -> Value:
    percents = [value.percent for value in found if value.percent is not None]
    if not percents:
        return found[0]
    deviation = stdev(percents) if len(percents) > 1 else None
    return replace(found[0], percent=fmean(percents), deviation=deviation, seeds=len(percents), rank=0)
