"""LaTeX tables: a golden table, escaping, side-by-side datasets, and a page that compiles where TeX is installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from zsadbench.records.results import Record
from zsadbench.tables import quality

DOCUMENT = r"""\documentclass[10pt]{article}
\usepackage[T1]{fontenc}
\usepackage[a4paper,landscape,margin=12mm]{geometry}
\usepackage{booktabs}
\begin{document}
%s
\end{document}
"""


def record(method: str, dataset: str, category: str, value: float | None, **changes: Any) -> Record:
    """Return a finished cell whose metrics are all `value`."""
    metrics = dict.fromkeys(("auroc", "f1_max", "ap"), value)
    facts: dict[str, Any] = {
        "status": "done",
        "title": method.partition(".")[0].upper(),
        "image": metrics,
        "pixel": metrics | {"aupro": value},
        "setting": {"scope": "image", "shots": 0, "trained_on": [], "leak": False},
        "changed": {},
    }
    return Record(method=method, dataset=dataset, category=category, **(facts | changes))


def source(*records: Record, **options: Any) -> str:
    return quality.render(records, format="latex", cards={}, **options)


def trained(*names: str, leak: bool = False) -> dict[str, Any]:
    return {"scope": "image", "shots": 0, "trained_on": list(names), "leak": leak}


def test_two_datasets_stand_side_by_side_under_three_header_lines() -> None:
    text = source(
        record("a", "mvtec", "bottle", 0.9),
        record("b", "mvtec", "bottle", 0.8, setting=trained("visa")),
        record("a", "visa", "candle", 0.5),
        Record("b", "visa", "candle", "needs_checkpoint", error="Give a file.", title="B"),
    )
    wanted = r"""
\begin{tabular}{@{}lllrrrrrrrrrrrrrr@{}}
\toprule
 &  &  & \multicolumn{7}{c}{mvtec} & \multicolumn{7}{c}{visa} \\
\cmidrule(lr){4-10}\cmidrule(lr){11-17}
 &  &  & \multicolumn{3}{c}{Image} & \multicolumn{4}{c}{Pixel} & \multicolumn{3}{c}{Image} & \multicolumn{4}{c}{Pixel} \\
\cmidrule(lr){4-6}\cmidrule(lr){7-10}\cmidrule(lr){11-13}\cmidrule(lr){14-17}
Method & Setting & Trained on & AUROC & F1-max & AP & AUROC & F1-max & AP & AU-PRO & AUROC & F1-max & AP & AUROC & F1-max & AP & AU-PRO \\
\midrule
A & 0-shot & -- & BEST & 50.0 & 50.0 & 50.0 & 50.0 & 50.0 & 50.0 & 50.0 \\
B & 0-shot & visa & SECOND & \multicolumn{7}{c}{needs a checkpoint} \\
\bottomrule
\end{tabular}
"""  # noqa: E501  # a golden table is as wide as it is
    wanted = wanted.replace("BEST", " & ".join([r"\textbf{90.0}"] * 7)).replace(
        "SECOND", " & ".join([r"\underline{80.0}"] * 7)
    )
    assert wanted in text
    assert text.count(r"\begin{table}") == 1


def test_three_datasets_need_two_tables_and_the_notes_come_last() -> None:
    text = source(*(record("a", name, "one", 0.5) for name in ("btad", "mpdd", "mvtec")))
    assert text.count(r"\begin{table}") == 2
    assert text.count("Percent, unweighted means") == 1
    assert text.index("Percent, unweighted means") > text.rindex(r"\end{tabular}")


def test_a_method_that_was_not_run_on_one_dataset_has_dashes_there() -> None:
    text = source(
        record("a", "mvtec", "bottle", 0.5), record("a", "visa", "candle", 0.5), record("b", "visa", "candle", 0.6)
    )
    row = next(line for line in text.splitlines() if line.startswith("B & "))
    assert row.split(" & ")[3:10] == ["--"] * 7


def test_a_marked_row_keeps_its_dataset_apart_from_others() -> None:
    text = source(
        record("a", "mvtec", "bottle", 0.5, setting=trained("visa")),
        record("a", "visa", "candle", 0.5, setting=trained("visa", leak=True)),
        Record("a", "visa", "pcb1", "failed", error="Disk full.", title="A"),
    )
    assert text.count(r"\begin{table}") == 2
    assert "\nA & 0-shot & visa &" in text
    assert "\n" + r"A \textsuperscript{\dag} {[}1 of 2 categories{]} & 0-shot & visa &" in text


def test_a_mark_that_holds_on_every_dataset_keeps_them_side_by_side() -> None:
    scaled = {**trained("visa"), "image_scope": "category"}
    text = source(*(record("a", dataset, "x", 0.5, setting=scaled) for dataset in ("mvtec", "visa")))
    assert text.count(r"\begin{table}") == 1 and "\nA \\textsuperscript{\\S} & 0-shot & visa &" in text


def test_training_sets_that_differ_between_datasets_are_both_named() -> None:
    text = source(
        record("a", "mvtec", "bottle", 0.5, setting=trained("visa")),
        record("a", "visa", "candle", 0.5, setting=trained("mvtec")),
    )
    assert "A & 0-shot & visa / mvtec &" in text


def test_a_method_has_one_row_for_datasets_where_it_runs_under_other_presets() -> None:
    text = source(
        record("april_gan", "mvtec", "bottle", 0.5, setting=trained("visa"), options={"trained_on": "visa"}),
        record("april_gan.mvtec", "visa", "candle", 0.6, setting=trained("mvtec"), options={"trained_on": "mvtec"}),
        record("winclip", "mvtec", "bottle", 0.4),
    )
    assert text.count(" & 0-shot & ") == 2 and "& visa / mvtec & \\textbf{50.0}" in text
    assert r"APRIL\_GAN is april\_gan on mvtec; april\_gan.mvtec on visa." in text


def test_categories_are_rows_with_a_rule_above_the_mean() -> None:
    text = source(record("a", "mvtec", "metal_nut", 0.5), record("a", "mvtec", "bottle", 0.7), level="category")
    body = text[text.index("Category & Method") :].splitlines()
    assert [line.split(" & ")[0] for line in body[2:6]] == ["bottle", r"metal\_nut", r"\midrule", "mean"]


def test_names_cannot_break_the_source() -> None:
    text = source(record("a", "mvtec", "bottle", 0.5, title=r"[x] 100% a_b & <c> {d} #1 $2 ~ ^ \e | --set"))
    assert (
        r"{[}x{]} 100\% a\_b \& \textless{}c\textgreater{} \{d\} \#1 \$2 \textasciitilde{} \textasciicircum{} "
        r"\textbackslash{}e \textbar{} -{}-set & 0-shot"
    ) in text


def test_published_numbers_and_gaps_stand_behind_the_measured_one() -> None:
    encoder = {"spec": "open_clip:ViT-B-16-plus-240/laion400m_e31"}
    text = source(
        record("winclip", "mvtec", "bottle", 0.9, encoder=encoder),
        record("winclip", "mvtec", "cable", None, encoder=encoder),
        published=True,
    )
    assert r"90.0 {\scriptsize {[}1 of 2{]}} (91.8)" in text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no TeX is installed")
@pytest.mark.parametrize("options", [{}, {"level": "category"}, {"published": True}])
def test_a_document_compiles_without_overfull_lines(tmp_path: Path, options: dict[str, Any]) -> None:
    awkward = r"A_b & 50% <x> {y} #1 $2 ~ ^ \e | [z]"
    records = [
        record(method, dataset, "metal_nut", 0.5) for method in ("winclip", "musc") for dataset in ("mvtec", "visa")
    ]
    records += [record("c", "mvtec", "metal_nut", 0.6, title=awkward, setting=trained("visa", leak=True))]
    records += [Record("d", "visa", "metal_nut", "failed", error=awkward, title="D")]
    (tmp_path / "page.tex").write_text(DOCUMENT % source(*records, **options), encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-2000:]
    assert "Overfull" not in run.stdout
