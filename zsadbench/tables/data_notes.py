"""What records tell about their data: said at the end of a run and below every table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from zsadbench.analysis.rows import identity
from zsadbench.data import findings, reading
from zsadbench.datasets import Oddity
from zsadbench.records.results import Record


def notes(done: Iterable[Record]) -> Iterator[str]:
    """Yield sentences about the files that finished records were made from, data set by data set."""
    datasets: dict[str, list[Record]] = {}
    for record in done:
        datasets.setdefault(record.dataset, []).append(record)
    for name, records in datasets.items():
        odd = {record.category: record.details.get("odd", {}) for record in records}  # the same whatever the method
        found = [{kind: Oddity(**values) for kind, values in kinds.items()} for kinds in odd.values()]
        yield from (finding.message for finding in findings.of_pixels(name, reading.add(found)))
        yield from _lost(name, records)


def _lost(name: str, records: Iterable[Record]) -> Iterator[str]:
    """Say how many defect regions the evaluation size lost; methods may differ in it."""
    facts = {(identity(record), record.category): record.details.get("pixel", {}) for record in records}
    totals: dict[tuple[str, str], int] = {}
    regions: dict[str, int] = {}  # by category
    for (method, category), pixel in facts.items():
        totals[method] = totals.get(method, 0) + pixel.get("lost_regions", 0)
        regions[category] = max(regions.get(category, 0), pixel.get("native_regions", 0))
    lost = sorted(set(totals.values()))
    if lost and lost[-1]:
        span = f"{lost[0]} to {lost[-1]}" if len(lost) > 1 else f"{lost[0]}"
        yield (
            f"{name}: {span} of {sum(regions.values())} defect regions have no pixel at the evaluation size, so that "
            "no pixel metric sees them; a larger --eval-size, or native, does."
        )
