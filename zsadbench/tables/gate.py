"""The diff of the regression gate as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from tabulate import tabulate

from zsadbench.analysis.gate import Baseline, Change
from zsadbench.tables import words


def render(changes: Sequence[Change], baseline: Baseline) -> str:
    """Return the diff as Markdown: what moved and by how much, which cells are missing or new, and the verdict."""
    failed = sum(change.fails for change in changes)
    moved = sum(change.verdict == "moved" for change in changes)
    lines = [_line(change) for change in changes if change.verdict != "moved"]
    head = ["", "Cell", "Metric", "Baseline", "Now", "Change"]
    sides = ("left", "left", "left", "right", "right", "right")
    table = tabulate(lines, head, tablefmt="pipe", disable_numparse=True, colalign=sides) + "\n\n" if lines else ""
    within = f"; {moved} numbers moved within their tolerance" if moved else ""
    verdict = f"{failed} fell or are missing" if failed else "nothing fell"
    return f"{table}Gate over {len(baseline.cells)} cells: {verdict}{within}."


def _line(change: Change) -> list[str]:
    before, now = change.before, change.now
    difference = f"{100 * (now - before):+.2f}" if before is not None and now is not None else words.DASH
    if not change.metric:
        return [change.verdict, change.cell, change.reason, words.DASH, words.DASH, words.DASH]
    return [change.verdict, change.cell, change.metric, _percent(before), _percent(now), difference]


def _percent(value: float | None) -> str:
    return words.DASH if value is None else f"{100 * value:.2f}"
