"""Sheets: one writer and one escaper a format, whatever the table is about."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from zsadbench.tables import sheet
from zsadbench.tables.sheet import Cell, Row, Sheet

AWKWARD = r"[x] 100% a_b & <c> {d} #1 $2 ~ ^ \e | --set *s* `t` † ± –"
NUMBERS = Row(
    (Cell("a"), Cell("1.0", 1, ("0.5", "1.5"), ("± 0.1", "[1 of 2]"), "(2.0)"), Cell("3.0", rank=2), Cell(sheet.DASH))
)
PLAIN = Sheet("Title", ("Name", "x", "y", "z"), 1, (NUMBERS, Row((Cell("b"), Cell("failed", columns=3)), "rule")))


def test_markdown_marks_the_best_and_shows_what_stands_behind_a_number():
    wanted = """
### Title

| Name   |                                       x |          y |   z |
|:-------|----------------------------------------:|-----------:|----:|
| a      | **1.0** [0.5, 1.5] ± 0.1 [1 of 2] (2.0) | <u>3.0</u> |   – |
| b      |                                  failed |          – |   – |

- A note.
"""
    assert sheet.markdown([PLAIN], ["A note."]) == wanted.lstrip("\n")


def test_latex_does_so_with_rules_and_spans():
    text = sheet.latex([PLAIN], ["A note."])
    assert r"a & \textbf{1.0}\,$_{0.5}^{1.5}$ {\scriptsize $\pm$ 0.1} {\scriptsize {[}1 of 2{]}} (2.0)" in text
    assert r"& \underline{3.0} & -- \\" in text
    assert "\\midrule\nb & \\multicolumn{3}{c}{failed} \\\\\n\\bottomrule" in text
    assert text.index(r"\caption{Title.}") < text.index("A note.") < text.index(r"\end{table}")


def test_notes_of_all_tables_stand_under_the_last_one():
    first, second = (Sheet(name, ("a", "b"), 1, (sheet.row("xy"),), (f"Of {name}.",)) for name in ("one", "two"))
    for text in (sheet.markdown([first, second], ["Of all."]), sheet.latex([first, second], ["Of all."])):
        assert re.findall(r"Of \w+", text) == ["Of one", "Of two", "Of all"]
        assert text.index("Of one") < text.index("two")


def test_a_command_in_a_note_can_be_copied():
    note = "a_ needs *weights*: run `zsadbench train --method a.b --out c/a_`, or `one|two`, not a lone `."
    assert sheet.markdown([], [note]) == (
        "- a\\_ needs \\*weights\\*: run `zsadbench train --method a.b --out c/a_`, or `one|two`, not a lone \\`.\n"
    )


def test_notes_without_a_table_are_whole_latex():
    text = sheet.latex([], ["winclip: No memory."])
    assert text.count(r"\begin") == text.count(r"\end") == 1 and "winclip: No memory." in text
    assert sheet.markdown([], ["winclip: No memory."]) == "- winclip: No memory.\n"


def test_columns_fit_the_terminal_by_wrapping_the_widest(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    rows = [("one", "a long title that must be wrapped somewhere", 7), ("three", "short", 12)]
    assert sheet.plain(["name", "title", "count"], rows).splitlines() == [
        "name   title                       count",
        "-----  --------------------------  -----",
        "one    a long title that must be       7",
        "       wrapped somewhere",
        "three  short                          12",
    ]


def test_csv_keeps_every_digit_and_tells_undefined_from_zero():
    assert sheet.tidy_csv(["a", "b", "c"], [(1 / 3, None, "x,y")]) == f'a,b,c\n{1 / 3!r},,"x,y"\n'


def test_only_the_sheet_writes_tables_as_text():
    """No other module has a writer or an escaper of its own."""
    package = Path(sheet.__file__).parents[1]
    for path in (package / "tables").glob("*.py"):
        if path.name != "sheet.py":
            assert not re.search(r"^import (csv|html)|tablefmt|\\begin|toprule", path.read_text(), re.MULTILINE), path


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no TeX is installed")
@pytest.mark.parametrize("sheets", [[], [Sheet(AWKWARD, (AWKWARD, "n"), 1, (sheet.row([AWKWARD, "1"]),), (AWKWARD,))]])
def test_every_text_compiles(tmp_path, sheets):
    body = sheet.latex(sheets, [AWKWARD])
    source = f"\\documentclass{{article}}\\usepackage{{booktabs}}\\begin{{document}}\n{body}\\end{{document}}"
    (tmp_path / "page.tex").write_text(source, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
