"""`table --significance`: average ranks with their tests, and differences of pairs on each dataset. Nothing is rounded
before it is printed; CSV has one number a line, of every metric.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from tabulate import tabulate

from zsadbench import datasets
from zsadbench.analysis.differences import Differences, compare
from zsadbench.analysis.intervals import Resamples
from zsadbench.analysis.rows import COLUMNS, Column, name_methods
from zsadbench.analysis.significance import ALPHA, FEWEST_BLOCKS, NothingToCompare, Ranking, analyse
from zsadbench.records.results import Record
from zsadbench.tables import latex, words
from zsadbench.tables.quality import escape_markdown

PAIRS: tuple[Column, ...] = (("image", "auroc"), ("pixel", "aupro"))  # metrics whose pairs are printed; CSV has all
FIELDS = ("test", "dataset", "level", "metric", "method", "setting", "other", "other_setting", "value", "p")


class Section(NamedTuple):
    """One printed table."""

    title: str
    head: tuple[str, ...]
    texts: int  # columns of text, which come first
    body: list[tuple[str, ...]]
    bold: set[tuple[int, int]]  # (line, column)
    notes: list[str]


def render(records: Sequence[Record], resamples: Resamples, format: str = "md") -> str:
    """Return the comparison of the methods of some records as text in a format: "md", "latex" or "csv".

    `resamples` must hold the records' runs. Raises RecordError where no metric can be compared or files are missing,
    MissingDependency without the extra `report`.
    """
    rankings: list[Ranking] = []
    differences: list[Differences] = []
    problems: dict[str, None] = {}
    for column in COLUMNS:
        try:
            rankings.append(analyse(records, *column))
        except NothingToCompare as error:
            problems[str(error)] = None
    if not rankings:
        raise NothingToCompare(next(iter(problems)))
    for dataset in dict.fromkeys(record.dataset for record in records):
        for column in COLUMNS if format == "csv" else PAIRS:
            try:
                differences.append(compare(records, resamples, dataset, *column))
            except NothingToCompare as error:
                problems[str(error)] = None
    if format == "csv":
        return _csv(rankings, differences)
    titles = {listing.name: listing.card.title for listing in datasets.available() if listing.card}
    sections = [_ranks(rankings), *(_pairs(one, titles.get(one.dataset, one.dataset)) for one in differences)]
    done = [record for record in records if record.status == "done"]
    leaks = dict.fromkeys(f"{record.method} on {record.dataset}" for record in done if record.setting.get("leak"))
    told = [f"Left out, because the checkpoint was trained on the dataset: {', '.join(leaks)}."] if leaks else []
    sections[-1].notes.extend([*problems, *told, *words.conditions(done, name_methods(done))])
    return (_latex if format == "latex" else _markdown)(sections)


def _ranks(rankings: Sequence[Ranking]) -> Section:
    """One line a method, in the order of the first metric; one column a metric."""
    first = rankings[0]
    body = []
    for name, setting in zip(first.names, first.settings, strict=True):
        ranks = [one.average_ranks[one.names.index(name)] for one in rankings]
        body.append((name.title, setting, *(f"{rank:.2f}" for rank in ranks)))
    tests = [one.tests for one in rankings]
    if any(tests):
        differences = [f"{test.critical_difference:.2f}" if test else words.DASH for test in tests]
        body.append(("Friedman, p", "", *(_p(test.friedman_p if test else None) for test in tests)))
        body.append(("critical difference", "", *differences))
    head = ("Method", "Setting", *(_label(one.level, one.metric) for one in rankings))
    return Section("Average ranks", head, 2, body, set(), list(_rank_notes(rankings)))


def _rank_notes(rankings: Sequence[Ranking]) -> Iterator[str]:
    blocks: dict[tuple[int, str], list[str]] = {}
    for one in rankings:
        kind = "datasets" if one.kind == "dataset" else "categories"
        blocks.setdefault((len(one.blocks), kind), []).append(_label(one.level, one.metric))
    for (count, kind), labels in blocks.items():
        which = "" if len(blocks) == 1 else f" for {', '.join(labels)}"
        yield f"1 is best. Average ranks over {count} {kind}{which}; methods of all settings are ranked together."
        if count < FEWEST_BLOCKS:
            yield f"No test of ranks is made over fewer than {FEWEST_BLOCKS} {kind}: it would say next to nothing."
    if any(one.kind == "category" for one in rankings):
        yield "Categories of one dataset are less independent than datasets: ranks over them look surer than they are."
    for one in rankings:
        if one.tests:
            runs = [" = ".join(name.title for name in one.names[i : j + 1]) for i, j in one.tests.groups()]
            p = one.tests.wilcoxon_p[np.triu_indices(len(one.names), 1)]
            yield (
                f"{_label(one.level, one.metric)}, not told apart by Nemenyi's test at {ALPHA:g}: "
                f"{'; '.join(runs) or 'no two methods'}. Wilcoxon's test, Holm-corrected, tells {(p < ALPHA).sum()} of "
                f"{p.size} pairs apart (--format csv lists them)."
            )
    left_out = dict.fromkeys(place for one in rankings for place in one.left_out)
    if left_out:
        yield f"Left out for some metric, because some method has no value there: {', '.join(left_out)}."


def _pairs(one: Differences, title: str) -> Section:
    """One line and one numbered column a method, the best first; differences above the diagonal."""
    count = len(one.names)
    body: list[tuple[str, ...]] = []
    bold: set[tuple[int, int]] = set()
    for i in range(count):
        differences = [f"{one.points[i, j]:.1f}" if j > i else "" for j in range(1, count)]
        body.append((f"{i + 1} {one.names[i].title}", one.settings[i], words.percent(one.values[i]), *differences))
        bold |= {(i, 2 + j) for j in range(i + 1, count) if one.p[i, j] < ALPHA}
    head = ("Method", "Setting", "mean", *(str(j + 1) for j in range(1, count)))
    notes = [
        f"Percent points by which a method is better than the one of the column's number, over {one.categories} "
        f"categories. Bold: p < {ALPHA:g} in a paired bootstrap test over images, Holm-corrected for "
        f"{count * (count - 1) // 2} pairs."
    ]
    if one.left_out:
        notes.append(f"Left out, because some method has no value there: {', '.join(one.left_out)}.")
    return Section(f"{title}: differences in {_label(one.level, one.metric)}", head, 2, body, bold, notes)


def _label(level: str, metric: str) -> str:
    return f"{level} {words.LABELS.get(metric, metric)}"


def _p(p: float | None) -> str:
    if p is None:
        return words.DASH
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _markdown(sections: Sequence[Section]) -> str:
    parts = []
    for section in sections:
        body = _marked(section, escape_markdown, "**{}**")
        head = [escape_markdown(text) for text in section.head]
        table = tabulate(body, head, tablefmt="pipe", disable_numparse=True, colalign=_sides(section))
        notes = "\n".join(f"- {escape_markdown(note)}" for note in section.notes)
        parts += [f"### {escape_markdown(section.title)}", table, notes]
    return "\n\n".join(parts) + "\n"


def _latex(sections: Sequence[Section]) -> str:
    parts = [latex.HEAD.rstrip()]
    for section in sections:
        head, *body = [
            " & ".join(line) + r" \\"
            for line in (
                [latex.escape(text) for text in section.head],
                *_marked(section, latex.escape, r"\textbf{{{}}}"),
            )
        ]
        columns = "".join(side[0] for side in _sides(section))
        parts += [
            r"\begin{table}[tp]",
            r"\centering\footnotesize",
            r"\setlength{\tabcolsep}{3pt}",
            rf"\caption{{{latex.escape(section.title)}.}}",
            rf"\begin{{tabular}}{{@{{}}{columns}@{{}}}}",
            r"\toprule",
            head,
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\par\medskip\raggedright",
            "\\par\n".join(latex.escape(note) for note in section.notes),
            r"\end{table}",
            "",
        ]
    return "\n".join(parts)


def _marked(section: Section, escape: Callable[[str], str], bold: str) -> list[list[str]]:
    return [
        [bold.format(escape(text)) if (i, j) in section.bold else escape(text) for j, text in enumerate(line)]
        for i, line in enumerate(section.body)
    ]


def _sides(section: Section) -> tuple[str, ...]:
    return ("left",) * section.texts + ("right",) * (len(section.head) - section.texts)


def _csv(rankings: Sequence[Ranking], differences: Sequence[Differences]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(FIELDS)
    for ranking in rankings:
        writer.writerows(_rank_rows(ranking))
    for one in differences:
        for i, j in combinations(range(len(one.names)), 2):
            pair = one.names[i].cli, one.settings[i], one.names[j].cli, one.settings[j]
            place = one.dataset, one.level, one.metric
            writer.writerow(("bootstrap_holm", *place, *pair, one.points[i, j], one.p[i, j]))
    return text.getvalue()


def _rank_rows(one: Ranking) -> Iterator[tuple[object, ...]]:
    """Yield the ranks and tests of one metric; values of pairs are differences of average ranks."""
    place = "", one.level, one.metric
    for name, setting, rank in zip(one.names, one.settings, one.average_ranks, strict=True):
        yield "average_rank", *place, name.cli, setting, "", "", rank, ""
    if one.tests is None:
        return
    yield "friedman", *place, "", "", "", "", one.tests.friedman, one.tests.friedman_p
    yield "critical_difference", *place, "", "", "", "", one.tests.critical_difference, ALPHA
    for i, j in combinations(range(len(one.names)), 2):
        pair = one.names[i].cli, one.settings[i], one.names[j].cli, one.settings[j]
        difference = one.average_ranks[j] - one.average_ranks[i]
        yield "nemenyi", *place, *pair, difference, one.tests.nemenyi_p[i, j]
        yield "wilcoxon_holm", *place, *pair, difference, one.tests.wilcoxon_p[i, j]
