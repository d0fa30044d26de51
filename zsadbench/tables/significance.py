"""`table --significance`: average ranks with their tests, and differences of pairs on each dataset. Nothing is rounded
before it is printed; CSV has one number a line, of every metric.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from typing import NamedTuple

import numpy as np

from zsadbench import datasets, metrics
from zsadbench.analysis import across
from zsadbench.analysis.differences import Differences, compare
from zsadbench.analysis.intervals import Resamples
from zsadbench.analysis.rows import check_protocols, name_methods
from zsadbench.analysis.significance import ALPHA, FEWEST_BLOCKS, MethodRanking, NothingToCompare, analyse, by_setting
from zsadbench.metrics import Column
from zsadbench.records.results import Record
from zsadbench.tables import sheet, words
from zsadbench.tables.sheet import Cell, Sheet

PAIRS: tuple[Column, ...] = (("image", "auroc"), ("pixel", "aupro"))  # metrics whose pairs are printed; CSV has all
FIELDS = ("test", "dataset", "level", "metric", "method", "setting", "other", "other_setting", "value", "p")


def render(records: Sequence[Record], resamples: Resamples, format: str = "md") -> str:
    """Return the comparison of the methods of some records as text in a format: "md", "latex" or "csv".

    `resamples` must hold the records' runs. Raises RecordError where no metric can be compared or files are missing,
    MissingDependency without the extra `report`.
    """
    check_protocols(records)
    groups = by_setting(records)
    problems: dict[str, None] = {}
    compared = []
    for setting, group in groups.items():
        one = _compare(group, resamples, format)
        problems |= dict.fromkeys(f"{setting}: {problem}" for problem in one.problems)
        compared += [one] if one.rankings else []
    if not compared:
        told = " ".join(problems) or "got no finished result; expected those of two methods or more."
        raise NothingToCompare(f"methods are compared with those of their setting. {told}")
    if format == "csv":
        return sheet.tidy_csv(FIELDS, [line for one in compared for line in _csv(one)])
    titles = {listing.name: listing.card.title for listing in datasets.available() if listing.card}
    sheets = []
    for one in compared:
        pairs = (_pairs(pair, titles.get(pair.dataset, pair.dataset)) for pair in one.differences)
        sheets += [_ranks(one.rankings), *pairs]
    done = [record for record in records if record.status == "done"]
    leaks = dict.fromkeys(f"{record.method} on {record.dataset}" for record in done if record.setting.get("leak"))
    left_out = [f"Left out, because the checkpoint was trained on the dataset: {', '.join(leaks)}."] if leaks else []
    more = (*problems, *left_out, *across.notes(done), *words.conditions(done, name_methods(done)))
    sheets[-1] = replace(sheets[-1], notes=(*sheets[-1].notes, *more))
    return (sheet.latex if format == "latex" else sheet.markdown)(sheets)


class _Compared(NamedTuple):
    """What was found in one setting, and why no more was."""

    rankings: list[MethodRanking]
    differences: list[Differences]
    problems: list[str]


def _compare(records: Sequence[Record], resamples: Resamples, format: str) -> _Compared:
    found = _Compared([], [], [])
    for column in metrics.columns():
        try:
            found.rankings.append(analyse(records, *column))
        except NothingToCompare as error:
            found.problems.append(str(error))
    for dataset in dict.fromkeys(record.dataset for record in records) if found.rankings else ():
        for column in metrics.columns() if format == "csv" else PAIRS:
            try:
                found.differences.append(compare(records, resamples, dataset, *column))
            except NothingToCompare as error:
                found.problems.append(str(error))
    return found


def _ranks(rankings: Sequence[MethodRanking]) -> Sheet:
    """One line a method, in the order of the first metric; one column a metric."""
    first = rankings[0]
    body = []
    for name, setting in zip(first.names, first.settings, strict=True):
        ranks = [one.average_ranks[one.names.index(name)] for one in rankings]
        body.append([name.title, setting, *(f"{rank:.2f}" for rank in ranks)])
    tests = [one.tests for one in rankings]
    if any(tests):
        differences = [f"{test.critical_difference:.2f}" if test else sheet.DASH for test in tests]
        body.append(["Friedman, p", "", *(_p(test.friedman_p if test else None) for test in tests)])
        body.append(["critical difference", "", *differences])
    head = ("Method", "Setting", *map(_label, rankings))
    return Sheet(
        f"Average ranks, {first.settings[0]}", head, 2, tuple(map(sheet.row, body)), tuple(_rank_notes(rankings))
    )


def _rank_notes(rankings: Sequence[MethodRanking]) -> Iterator[str]:
    blocks: dict[tuple[int, str], list[str]] = {}
    for one in rankings:
        kind = "datasets" if one.kind == "dataset" else "categories"
        blocks.setdefault((len(one.blocks), kind), []).append(_label(one))
    for (count, kind), labels in blocks.items():
        which = "" if len(blocks) == 1 else f" for {', '.join(labels)}"
        yield f"1 is best. Average ranks over {count} {kind}{which}, among methods of this setting."
        if count < FEWEST_BLOCKS:
            yield f"No test of ranks is made over fewer than {FEWEST_BLOCKS} {kind}: it would say next to nothing."
    if any(one.kind == "category" for one in rankings):
        yield "Categories of one dataset are less independent than datasets: ranks over them look surer than they are."
    for one in rankings:
        if one.tests:
            runs = [" = ".join(name.title for name in one.names[i : j + 1]) for i, j in one.tests.groups()]
            p = one.tests.wilcoxon_p[np.triu_indices(len(one.names), 1)]
            yield (
                f"{_label(one)}, not told apart by Nemenyi's test at {ALPHA:g}: "
                f"{'; '.join(runs) or 'no two methods'}. Wilcoxon's test, Holm-corrected, tells {(p < ALPHA).sum()} of "
                f"{p.size} pairs apart (--format csv lists them)."
            )
    left_out = dict.fromkeys(place for one in rankings for place in one.left_out)
    if left_out:
        yield f"Left out for some metric, because some method has no value there: {', '.join(left_out)}."


def _pairs(one: Differences, title: str) -> Sheet:
    """One line and one numbered column a method, the best first; differences above the diagonal."""
    count = len(one.names)
    rows = []
    for i in range(count):
        texts = f"{i + 1} {one.names[i].title}", one.settings[i], words.percent(one.values[i], one.metric)
        differences = [
            Cell(f"{one.points[i, j]:.1f}", rank=int(one.p[i, j] < ALPHA)) if j > i else Cell() for j in range(1, count)
        ]
        rows.append(sheet.Row((*map(Cell, texts), *differences)))
    head = ("Method", "Setting", "mean", *(str(j + 1) for j in range(1, count)))
    notes = [
        f"Percent points by which a method is better than the one of the column's number, over {one.categories} "
        f"categories. Bold: p < {ALPHA:g} in a paired bootstrap test over images, Holm-corrected for "
        f"{count * (count - 1) // 2} pairs."
    ]
    if one.left_out:
        notes.append(f"Left out, because some method has no value there: {', '.join(one.left_out)}.")
    return Sheet(f"{title}, {one.settings[0]}: differences in {_label(one)}", head, 2, tuple(rows), tuple(notes))


def _label(one: MethodRanking | Differences) -> str:
    return words.label((one.level, one.metric))


def _p(p: float | None) -> str:
    if p is None:
        return sheet.DASH
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _csv(compared: _Compared) -> Iterator[tuple[object, ...]]:
    for ranking in compared.rankings:
        yield from _rank_rows(ranking)
    for one in compared.differences:
        place = one.dataset, one.level, one.metric
        for i, j in combinations(range(len(one.names)), 2):
            pair = one.names[i].cli, one.settings[i], one.names[j].cli, one.settings[j]
            yield "bootstrap_holm", *place, *pair, one.points[i, j], one.p[i, j]


def _rank_rows(one: MethodRanking) -> Iterator[tuple[object, ...]]:
    """Yield the ranks and tests of one metric; values of pairs are differences of average ranks."""
    place = "", one.level, one.metric
    for name, setting, rank in zip(one.names, one.settings, one.average_ranks, strict=True):
        yield "average_rank", *place, name.cli, setting, "", "", rank, ""
    if one.tests is None:
        return
    setting = one.settings[0]
    yield "friedman", *place, "", setting, "", "", one.tests.friedman, one.tests.friedman_p
    yield "critical_difference", *place, "", setting, "", "", one.tests.critical_difference, ALPHA
    for i, j in combinations(range(len(one.names)), 2):
        pair = one.names[i].cli, one.settings[i], one.names[j].cli, one.settings[j]
        difference = one.average_ranks[j] - one.average_ranks[i]
        yield "nemenyi", *place, *pair, difference, one.tests.nemenyi_p[i, j]
        yield "wilcoxon_holm", *place, *pair, difference, one.tests.wilcoxon_p[i, j]
