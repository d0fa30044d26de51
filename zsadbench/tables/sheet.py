r"""A table as plain data, and one writer and one escaper a format: Markdown, LaTeX, CSV, and text for a terminal.

Other modules say what stands in the cells; here is how it looks. LaTeX is made to be `\input` into a paper, whose
preamble needs \usepackage{booktabs} and nothing else.
"""

from __future__ import annotations

import csv
import io
import re
import shutil
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from tabulate import tabulate

from zsadbench.support.texts import no_formula, printable

GAP, NARROWEST = "  ", 20  # between two columns of a terminal; characters of a column that is wrapped
FORMATS = ("md", "latex", "csv")
DASH = "–"  # what an undefined number is printed as
DAGGER = "†"  # a leak
DOUBLE_DAGGER = "‡"  # a published number of another configuration
SECTION = "\N{SECTION SIGN}"  # image scores that are scaled over the category
LATEX_ESCAPES = str.maketrans(
    {
        **{character: f"\\{character}" for character in "&%$#_{}"},
        **{character: f"{{{character}}}" for character in "[]*"},  # after a line break they would be its options
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "±": r"$\pm$",
        DASH: "--",
        DAGGER: r"\textsuperscript{\dag}",
        DOUBLE_DAGGER: r"\textsuperscript{\ddag}",
        SECTION: r"\textsuperscript{\S}",
    }
)
LATEX_HEAD = r"""% Needs \usepackage{booktabs}. Too wide? Put \resizebox{\linewidth}{!}{...} (graphicx) around a tabular.
"""  # noqa: E501


class Cell(NamedTuple):
    """One cell: its text, and what stands behind it in this order."""

    text: str = ""
    rank: int = 0  # 1 is printed bold, 2 underlined
    interval: tuple[str, str] | None = None  # its low and high end
    small: tuple[str, ...] = ()  # in small print, where the format has some
    after: str = ""
    columns: int = 1  # that it spans


class Row(NamedTuple):
    """One line, and what sets it off from the line above; Markdown has nothing for that."""

    cells: tuple[Cell, ...]
    above: Literal["", "rule", "space"] = ""


@dataclass(frozen=True)
class Sheet:
    """One table. All texts are plain: the writers escape them."""

    title: str  # heading or caption
    head: tuple[str, ...]
    texts: int  # so many columns are text and stand left; the others are numbers and stand right
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()  # below this table
    over: tuple[tuple[tuple[str, int], ...], ...] = ()  # header lines above `head`, of (text, columns); LaTeX alone


def row(texts: Iterable[str]) -> Row:
    """Return a line of nothing but texts."""
    return Row(tuple(map(Cell, texts)))


def markdown(sheets: Sequence[Sheet], notes: Sequence[str] = ()) -> str:
    """Return tables as Markdown; `notes` are about all of them."""
    parts = []
    for sheet in sheets:
        if sheet.title:
            parts.append(f"### {escape_markdown(sheet.title)}")
        parts += [_markdown_table(sheet), *_markdown_list(sheet.notes)]
    return "\n\n".join([*parts, *_markdown_list(notes)]) + "\n"


def latex(sheets: Sequence[Sheet], notes: Sequence[str] = ()) -> str:
    """Return tables as LaTeX, each an environment of its own; `notes` are about all and stand under the last one."""
    if not sheets:
        return LATEX_HEAD + "\n".join([*_latex_notes(notes), ""])
    blocks = [
        "\n".join(_latex_lines(sheet, [*sheet.notes, *(notes if sheet is sheets[-1] else ())])) for sheet in sheets
    ]
    return LATEX_HEAD + "\n".join(blocks)


def plain(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return texts in columns that fit the terminal, or 80 characters: the widest column is wrapped."""
    body = [list(map(str, row)) for row in rows]
    columns = list(zip(head, *body, strict=True))
    widths = [max(map(len, column)) for column in columns]
    widest = widths.index(max(widths))
    rest = shutil.get_terminal_size().columns - sum(widths) + widths[widest] - len(GAP) * (len(widths) - 1)
    widths[widest] = min(widths[widest], max(rest, NARROWEST))
    sides = [str.rjust if all(text.isdigit() for text in column[1:]) else str.ljust for column in columns]
    lines = []
    for row in [list(head), ["-" * width for width in widths], *body]:
        wrapped = textwrap.wrap(row[widest], widths[widest], break_on_hyphens=False) or [""]
        for i, part in enumerate(wrapped):
            cells = [part if j == widest else text if i == 0 else "" for j, text in enumerate(row)]
            aligned = (side(text, width) for side, text, width in zip(sides, cells, widths, strict=True))
            lines.append(GAP.join(aligned).rstrip())
    return "\n".join(lines)


def tidy_csv(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return lines of values as CSV: None is an empty field, a float its shortest exact form; no text is a formula."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for line in (head, *rows):
        writer.writerow(no_formula(printable(value)) if isinstance(value, str) else value for value in line)
    return text.getvalue()


def escape_markdown(text: str) -> str:
    """Escape what Markdown would read as markup; an underscore inside a word stays, because Markdown keeps it."""
    return _escape_markdown(" ".join(text.split()))


def _escape_markdown(text: str) -> str:
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*|]|\](?=[(\[]))", r"\\\1", text)
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)


def escape_latex(text: str) -> str:
    """Escape what LaTeX would read as markup, also the two hyphens of an option, which would become a dash."""
    return "-{}".join(part.translate(LATEX_ESCAPES) for part in re.split("-(?=-)", " ".join(text.split())))


def _sides(sheet: Sheet) -> list[str]:
    return ["left"] * sheet.texts + ["right"] * (len(sheet.head) - sheet.texts)


def _markdown_table(sheet: Sheet) -> str:
    body = [[text for cell in line.cells for text in _markdown_cells(cell)] for line in sheet.rows]
    head = [escape_markdown(text) for text in sheet.head]
    return tabulate(body, head, tablefmt="pipe", disable_numparse=True, colalign=_sides(sheet))


def _markdown_cells(cell: Cell) -> list[str]:
    marks = {1: ("**", "**"), 2: ("<u>", "</u>"), 0: ("", "")}[cell.rank]
    interval = f"[{', '.join(cell.interval)}]" if cell.interval else ""
    behind = [escape_markdown(text) for text in (interval, *cell.small, cell.after) if text]
    return [" ".join([escape_markdown(cell.text).join(marks), *behind]), *[DASH] * (cell.columns - 1)]


def _markdown_list(notes: Sequence[str]) -> list[str]:
    return ["\n".join(f"- {_markdown_sentence(note)}" for note in notes)] if notes else []


def _markdown_sentence(text: str) -> str:
    """Escape a sentence but for the commands between its backticks, so that they can be copied."""
    parts = re.split("(`[^`]+`)", " ".join(text.split()))
    return "".join(part if i % 2 else _escape_markdown(part) for i, part in enumerate(parts))


def _latex_lines(sheet: Sheet, notes: Sequence[str]) -> Iterator[str]:
    yield r"\begin{table}[tp]"
    yield r"\centering"
    yield rf"\caption{{{escape_latex(sheet.title)}.}}"
    yield r"\footnotesize"
    yield r"\setlength{\tabcolsep}{3pt}"
    if any(cell.interval for line in sheet.rows for cell in line.cells):
        yield r"\renewcommand{\arraystretch}{1.4}"  # room for their ends
    yield rf"\begin{{tabular}}{{@{{}}{''.join(side[0] for side in _sides(sheet))}@{{}}}}"
    yield r"\toprule"
    for groups in sheet.over:
        yield from _latex_spans(groups)
    yield " & ".join(map(escape_latex, sheet.head)) + r" \\"
    yield r"\midrule"
    for line in sheet.rows:
        yield from {"": (), "rule": (r"\midrule",), "space": (r"\addlinespace",)}[line.above]
        yield " & ".join(map(_latex_cell, line.cells)) + r" \\"
    yield r"\bottomrule"
    yield r"\end{tabular}"
    if notes:
        yield r"\par\medskip"
        yield from _latex_notes(notes)
    yield r"\end{table}"
    yield ""


def _latex_spans(groups: Sequence[tuple[str, int]]) -> Iterator[str]:
    """Yield a header line whose texts span columns, and the rules below the spans."""
    rules, start = [], 1
    for text, width in groups:
        if text:
            rules.append(rf"\cmidrule(lr){{{start}-{start + width - 1}}}")
        start += width
    yield " & ".join(_latex_cell(Cell(text, columns=width)) for text, width in groups) + r" \\"
    yield "".join(rules)


def _latex_cell(cell: Cell) -> str:
    text = escape_latex(cell.text)
    text = {1: rf"\textbf{{{text}}}", 2: rf"\underline{{{text}}}", 0: text}[cell.rank]
    if cell.interval:
        low, high = map(escape_latex, cell.interval)
        text += rf"\,$_{{{low}}}^{{{high}}}$"
    for small in cell.small:
        text += rf" {{\scriptsize {escape_latex(small)}}}"
    if cell.after:
        text += f" {escape_latex(cell.after)}"
    return rf"\multicolumn{{{cell.columns}}}{{c}}{{{text}}}" if cell.columns > 1 else text


def _latex_notes(notes: Sequence[str]) -> Iterator[str]:
    yield r"\begin{minipage}{\linewidth}\raggedright\footnotesize"
    yield "\\par\n".join(map(escape_latex, notes))
    yield r"\end{minipage}"
