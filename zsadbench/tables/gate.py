"""The diff of the regression gate as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from zsadbench.analysis.gate import Baseline, GateLine
from zsadbench.errors import counted
from zsadbench.tables import sheet
from zsadbench.tables.sheet import DASH, Sheet

HEAD = ("", "Cell", "Metric", "Baseline", "Now", "Change")


def render(changes: Sequence[GateLine], baseline: Baseline) -> str:
    """Return the diff as Markdown: what moved and by how much, which cells are missing or new, and the verdict."""
    failed = sum(change.fails for change in changes)
    moved = sum(change.verdict == "moved" for change in changes)
    rows = tuple(sheet.row(_texts(change)) for change in changes if change.verdict != "moved")
    table = sheet.markdown([Sheet("", HEAD, 3, rows)]) + "\n" if rows else ""
    within = f"; {moved} numbers moved within their tolerance" if moved else ""
    verdict = f"{failed} worse or missing" if failed else "nothing got worse"
    return f"{table}Gate over {counted(len(baseline.cells), 'cell')}: {verdict}{within}."


def _texts(change: GateLine) -> list[str]:
    before, now = change.before, change.now
    difference = f"{100 * (now - before):+.2f}" if before is not None and now is not None else DASH
    if not change.metric:
        return [change.verdict, change.cell, change.reason, DASH, DASH, DASH]
    return [change.verdict, change.cell, change.metric, _percent(before), _percent(now), difference]


def _percent(value: float | None) -> str:
    return DASH if value is None else f"{100 * value:.2f}"
