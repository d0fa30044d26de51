r"""Tables as LaTeX source for a paper: `\input` them; the preamble needs \usepackage{booktabs} and nothing else.

One `table` environment holds up to two datasets side by side, the image and pixel metrics of each under a rule. With
categories as rows, more than the measured number in the cells, or a mark at some row (a leak, lacking categories), each
dataset has a table of its own: there is no room, and a mark must not be read as if it were about both.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from zsadbench.analysis.rows import MEAN, Line, Table, Value
from zsadbench.tables import words

SIDE_BY_SIDE = 2  # datasets; at seven metrics each, what a landscape page or a two-column spread holds
ESCAPES = str.maketrans(
    {
        **{character: f"\\{character}" for character in "&%$#_{}"},
        **{character: f"{{{character}}}" for character in "[]*"},  # after a line break they would be its options
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        words.DASH: r"\textendash{}",
        words.DAGGER: r"\textsuperscript{\dag}",
    }
)
HEAD = r"""% Needs \usepackage{booktabs}. Too wide? Put \resizebox{\linewidth}{!}{...} (graphicx) around a tabular.
"""
DOCUMENT = r"""\documentclass[10pt]{article}
\usepackage[T1]{fontenc}
\usepackage[a4paper,landscape,margin=12mm]{geometry}
\usepackage{booktabs}
\begin{document}
%s
\end{document}
"""


@dataclass(frozen=True)
class Block:
    """Datasets that stand side by side."""

    tables: Sequence[Table]

    @property
    def by_category(self) -> bool:
        """Tell whether categories are rows."""
        return any(line.category != MEAN for table in self.tables for line in table.lines)

    @property
    def intervals(self) -> bool:
        """Tell whether values have intervals."""
        return any(value.interval for table in self.tables for line in table.lines for value in line.values.values())

    @property
    def texts(self) -> list[str]:
        """Return the headings of the text columns, which come first."""
        return [*(["Category"] if self.by_category else []), "Method", "Setting", "Trained on"]

    def rows(self) -> list[list[Line | None]]:
        """Return one list per row, sorted: the line of each dataset, None where the method was not run there."""
        keys = {(line.name, line.category): line for table in self.tables for line in table.lines}
        found = [{(line.name, line.category): line for line in table.lines} for table in self.tables]
        rows = [[lines.get(key) for lines in found] for key in keys]
        return sorted(rows, key=lambda row: min(line.order for line in row if line))


def document(tables: str) -> str:
    """Return a document that prints the output of `render`."""
    return DOCUMENT % tables


def render(tables: Sequence[Table], below: Sequence[Sequence[str]], notes: Sequence[str]) -> str:
    """Return one `table` environment per block of datasets.

    `below` holds the notes of each table, `notes` those of all, printed under the last block; both are plain text.
    """
    lines = [line for table in tables for line in table.lines]
    wide = any(
        value.published or value.interval or value.deviation is not None
        for line in lines
        for value in line.values.values()
    )
    step = 1 if wide or any(line.category != MEAN or words.marks(line) for line in lines) else SIDE_BY_SIDE
    blocks = []
    for start in range(0, len(tables), step):
        own = [note for reasons in below[start : start + step] for note in reasons]
        last = start + step >= len(tables)
        blocks.append(_environment(Block(tables[start : start + step]), [*own, *(notes if last else ())]))
    return HEAD + "\n".join(blocks)


def escape(text: str) -> str:
    """Escape what LaTeX would read as markup, also the two hyphens of an option, which would become a dash."""
    return re.sub("-(?=-)", "-{}", " ".join(text.translate(ESCAPES).split()))


def _environment(block: Block, notes: Sequence[str]) -> str:
    titles = " and ".join(escape(table.title) for table in block.tables)
    columns = "l" * len(block.texts) + "".join("r" * len(table.columns) for table in block.tables)
    return "\n".join(
        [
            r"\begin{table}[tp]",
            r"\centering",
            rf"\caption{{Anomaly detection on {titles}.}}",
            r"\footnotesize",
            r"\setlength{\tabcolsep}{3pt}",
            *([r"\renewcommand{\arraystretch}{1.4}"] if block.intervals else []),  # room for their ends
            rf"\begin{{tabular}}{{@{{}}{columns}@{{}}}}",
            r"\toprule",
            *_header(block),
            r"\midrule",
            *_body(block),
            r"\bottomrule",
            r"\end{tabular}",
            *_notes(notes),
            r"\end{table}",
            "",
        ]
    )


def _header(block: Block) -> Iterator[str]:
    """Yield three levels: dataset, image or pixel, metric."""
    blank = [("", 1)] * len(block.texts)
    datasets = [*blank, *((escape(table.title), len(table.columns)) for table in block.tables)]
    levels = [
        *blank,
        *(
            (label, sum(column[0] == level for column in table.columns))
            for table in block.tables
            for level, label in words.LEVELS.items()
        ),
    ]
    metrics = [escape(words.LABELS.get(metric, metric)) for table in block.tables for _, metric in table.columns]
    yield from _spanning(datasets)
    yield from _spanning(levels)
    yield " & ".join([*block.texts, *metrics]) + r" \\"


def _spanning(groups: Sequence[tuple[str, int]]) -> Iterator[str]:
    """Yield a header line whose texts span columns, and the rules below the spans."""
    cells, rules, start = [], [], 1
    for text, width in groups:
        cells.append(rf"\multicolumn{{{width}}}{{c}}{{{text}}}" if width > 1 else text)
        if text:
            rules.append(rf"\cmidrule(lr){{{start}-{start + width - 1}}}")
        start += width
    yield " & ".join(cells) + r" \\"
    yield "".join(rules)


def _body(block: Block) -> Iterator[str]:
    before: Line | None = None
    for row in block.rows():
        line = min((line for line in row if line), key=lambda line: line.order)  # a finished one, if there is one
        if before:
            yield from _separator(before, line, block)
        texts = [
            " ".join([line.name.title, *words.marks(line)]),
            line.setting or words.DASH,
            _trained_on(row) or words.DASH,
        ]
        if block.by_category:
            texts.insert(0, line.category if before is None or line.category != before.category else "")
        numbers = [_numbers(table, own) for table, own in zip(block.tables, row, strict=True)]
        yield " & ".join([*map(escape, texts), *numbers]) + r" \\"
        before = line


def _separator(before: Line, line: Line, block: Block) -> Iterator[str]:
    """Yield a rule above the mean of categories, and space between settings and between categories of many rows."""
    if block.by_category and before.category != line.category:
        several = len({row.name for table in block.tables for row in table.lines}) > 1
        if line.category == MEAN:
            yield r"\midrule"
        elif several:
            yield r"\addlinespace"
    elif not block.by_category and before.setting != line.setting:
        yield r"\addlinespace"


def _trained_on(row: Sequence[Line | None]) -> str:
    return " / ".join(dict.fromkeys(line.trained_on for line in row if line and line.trained_on))


def _numbers(table: Table, line: Line | None) -> str:
    if line is None:
        return " & ".join(["--"] * len(table.columns))
    if line.status != "done":
        return rf"\multicolumn{{{len(table.columns)}}}{{c}}{{{words.STATUSES[line.status]}}}"
    return " & ".join(_number(line, line.values[column]) for column in table.columns)


def _number(line: Line, value: Value) -> str:
    text = "--" if value.percent is None else words.percent(value.percent)
    text = {1: rf"\textbf{{{text}}}", 2: rf"\underline{{{text}}}", 0: text}[value.rank]
    if value.interval:
        low, high = (words.percent(end) for end in value.interval)
        text += rf"\,$_{{{low}}}^{{{high}}}$"
    if value.deviation is not None:
        text += rf" {{\scriptsize $\pm$ {words.percent(value.deviation)}}}"
    if words.gap(value, line):
        text += rf" {{\scriptsize {escape(f'[{words.gap(value, line)}]')}}}"
    return f"{text} ({words.percent(value.published.value)})" if value.published else text


def _notes(notes: Sequence[str]) -> Iterator[str]:
    if notes:
        yield r"\par\medskip"
        yield r"\begin{minipage}{\linewidth}\raggedright\footnotesize"
        yield "\\par\n".join(escape(note) for note in notes)
        yield r"\end{minipage}"
