"""Runs that differ in their seed alone, as rows of means and sample standard deviations.

What the seed draws depends on the method: the images of a batch, references, the training. Where it draws nothing anew
(one image at a time, the same checkpoint in every run), equal numbers are one number, and there is no deviation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean, stdev

from zsadbench.analysis.rows import Level, Line, Table, Value, arrange, check_protocols, identity, name_methods, rank
from zsadbench.datasets import DatasetCard
from zsadbench.errors import RecordError
from zsadbench.records.published import Library
from zsadbench.records.results import Record


def over_seeds(
    records: Sequence[Record], level: Level, cards: Mapping[str, DatasetCard], library: Library | None
) -> list[Table]:
    """Return one table per dataset, as `rows.arrange` does, each value a mean over the seeds of the records.

    Raises RecordError when there is one seed alone, when anything else differs, or when seeds cover different
    categories.
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
    rows: dict[tuple[str, str], list[Record]] = {}  # the records behind the lines of a dataset and method
    for found in finished.values():
        names = name_methods([*found, *unfinished])
        for record in found:
            rows.setdefault((record.dataset, names[identity(record)].cli), []).append(record)
        for table in arrange([*found, *unfinished], level, cards, library):
            tables.setdefault(table.dataset, table)
            for line in table.lines:
                lines.setdefault(table.dataset, {}).setdefault((line.name.cli, line.category), []).append(line)
    return [
        replace(
            table,
            lines=rank(
                _merge(dataset, runs, _varied(rows.get((dataset, name), ())))
                for (name, _), runs in lines[dataset].items()
            ),
        )
        for dataset, table in tables.items()
    ]


def _varied(records: Sequence[Record]) -> tuple[str, ...]:
    """Return what the seed drew anew for a method on a dataset, from its records of all seeds."""
    if not records:
        return ()
    first = records[0]
    weights = {record.protocol.get("seed", 0): record.setting.get("checkpoint_sha256", "") for record in records}
    trainings = len(set(weights.values()))
    told = "training" if trainings == len(weights) else f"training ({trainings} checkpoints in {len(weights)} runs)"
    drawn = {
        "images of --limit": first.protocol.get("limit") is not None,
        "order": first.setting.get("scope") == "batch" and first.protocol.get("order") == "shuffled",
        "references": first.setting.get("shots", 0) > 0,
        told: trainings > 1,
    }
    return tuple(what for what, happened in drawn.items() if happened)


def _merge(dataset: str, runs: Sequence[Line], varied: tuple[str, ...]) -> Line:
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
        values[column] = _mean(found, varied)
    return replace(first, values=values, varied=varied)


def _mean(found: Sequence[Value], varied: tuple[str, ...]) -> Value:
    percents = [value.percent for value in found if value.percent is not None]
    if not percents:
        return found[0]
    means_something = len(percents) > 1 and (varied or len(set(percents)) > 1)
    deviation = stdev(percents) if means_something else None
    return replace(found[0], percent=fmean(percents), deviation=deviation, seeds=len(percents), rank=0)
