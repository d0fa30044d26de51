"""The list of metrics: a metric that is added to it, and its function, is everywhere at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from zsadbench import metrics
from zsadbench.analysis import gate, significance
from zsadbench.analysis.rows import arrange
from zsadbench.metrics import Metric, measure, pixels
from zsadbench.records import published
from zsadbench.records.results import Record
from zsadbench.report import grids
from zsadbench.tables import quality

PACKAGE = Path(metrics.__file__).parents[1]
WASTE = Metric("waste", "Waste", higher_is_better=False, decimals=2)


@pytest.fixture
def added(monkeypatch):
    """One more metric: the share of negatives that score above the highest positive."""
    monkeypatch.setattr(metrics, "METRICS", (*metrics.METRICS, WASTE))
    waste = {"waste": lambda counts: int(counts.ranking.above[0]) / counts.ranking.negatives}
    monkeypatch.setattr(measure, "FUNCTIONS", {**measure.FUNCTIONS, **waste})


def test_every_metric_of_the_list_has_a_function_and_no_other_has():
    assert [metric.name for metric in metrics.METRICS] == list(measure.FUNCTIONS)
    assert metrics.columns() == (
        *(("image", name) for name in ("auroc", "f1_max", "ap")),
        *(("pixel", name) for name in ("auroc", "f1_max", "ap", "aupro")),
    )


def record(method: str, category: str, waste: float) -> Record:
    values = {"auroc": 0.5, "waste": waste}
    return Record(
        method, "mvtec", category, "done", title=method.upper(), image=values, pixel=values, fingerprint=method,
        setting={"scope": "image", "shots": 0}, data={"sha256": "1", "samples": 3},
    )  # fmt: skip


def test_a_metric_that_is_added_is_measured(added):
    scores, labels = np.array([3.0, 2.0, 1.0, 0.0], np.float32), np.array([0, 1, 0, 1])
    assert measure.image_metrics(scores, labels)["waste"] == 0.5
    counts = pixels.PixelCounts()
    counts.update(scores.reshape(1, 2, 2), labels.reshape(1, 2, 2))
    assert counts.compute()["waste"] == 0.5


def test_it_stands_in_tables_with_its_title_decimals_and_order(added):
    records = [record("a", "bottle", 0.25), record("b", "bottle", 0.125)]
    text = quality.render(records, cards={})
    assert "image Waste" in text and "pixel Waste" in text
    assert "<u>25.00</u>" in text and "**12.50**" in text
    assert "& Waste \\\\" in quality.render(records, "latex", cards={})
    assert "\na,mvtec,mean,pixel,waste,25.0," in quality.render(records, "csv", cards={})
    table = arrange(records, "dataset", {}, None)[0]
    assert "Pixel Waste" in grids.results(table, table.lines).head


def test_it_is_ranked_compared_with_a_baseline_and_read_from_papers(added, tmp_path):
    records = [record(name, f"c{i}", waste) for i in range(3) for name, waste in (("a", 0.2), ("b", 0.1))]
    assert [name.cli for name in significance.analyse(records, "image", "waste").names] == ["b", "a"]
    baseline = gate.make(records, {"all": 0.5})
    worse = [*records[:-1], record("b", "c2", 0.3)]
    assert [(one.verdict, one.metric) for one in gate.compare(worse, baseline, {})] == [
        ("worse", "image waste"),
        ("worse", "pixel waste"),
    ]
    assert [one.verdict for one in gate.compare(records, gate.make(worse, {"all": 0.5}), {})] == ["better"] * 2
    (tmp_path / "sources.csv").write_text("source,citation,access\npaper,A paper,read\n")
    header = ",".join(published.Number._fields[1:])
    (tmp_path / "paper.csv").write_text(f"{header}\n1,A,a,,,,,0,mvtec,mean,image,waste,20,,\n")
    assert published.load(tmp_path)[0].metric == "waste"


def test_nowhere_else_is_a_list_of_metrics():
    """Whoever adds one touches the list and the functions; `bounds` and `legacy` know the old ones by nature."""
    known = {"metrics/__init__.py", "metrics/measure.py", "metrics/bounds.py", "metrics/legacy.py"}
    spelled = {
        str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if '"f1_max"' in path.read_text("utf-8")
    }
    assert spelled <= known


def test_the_list_loads_no_numpy():
    code = "import sys, zsadbench.metrics; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, check=False).returncode == 0
