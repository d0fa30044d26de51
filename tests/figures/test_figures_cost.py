"""The efficiency figure: quality of the same method, options and encoder against what it costs on one device."""

from __future__ import annotations

from pathlib import Path

import pytest
from finished import PARTS

from zsadbench.errors import RecordError, UnknownName
from zsadbench.figures import efficiency as cost
from zsadbench.records import efficiency, results
from zsadbench.records.efficiency import EfficiencyRecord, Timing
from zsadbench.records.results import Record

pytest.importorskip("matplotlib", reason="figures need the extra `report`")


def measured(method: str, ms: float, **changes) -> EfficiencyRecord:
    facts = {
        "clock": "wall",
        "timed": "All.",
        "setting": {"scope": "image", "shots": 0},
        "parameters": 1,
        "baseline_bytes": 0,
        "timings": (Timing(1, 1, 3, ms, ms / 2, 2 * ms, 3 * 10**9),),
    }
    return EfficiencyRecord(
        method, method.upper(), "done", **({"device": "GPU", "precision": "fp16"} | facts | changes)
    )


@pytest.fixture
def run(tmp_path) -> Path:
    for method, auroc in (("fast", 0.5), ("slow", 0.75), ("unmeasured", 1.0)):
        record = Record(
            method,
            "toys",
            "bolt",
            "done",
            title=method.upper(),
            image={"auroc": auroc},
            pixel={"ap": 0.1},
            **PARTS,
        )
        results.save(tmp_path, record)
    efficiency.save(tmp_path, measured("fast", 2.0))
    efficiency.save(tmp_path, measured("slow", 200.0, random_weights=True))
    other = Record("fast", "toys (more)", "bolt", "done", title="FAST", image={"auroc": 0.9}, **PARTS)
    results.save(tmp_path, other)  # whose name begins like the first's
    return tmp_path


def test_panels_show_quality_over_time_and_memory_with_one_marker_a_method(run):
    figure, caption = cost.draw(*cost.collect([run], "toys"))
    time, memory, pixel_time, _ = figure.axes
    assert (time.get_ylabel(), pixel_time.get_ylabel()) == ("image AUROC", "pixel AP")
    assert time.get_xscale() == "log" and memory.get_xscale() == "linear"
    points = {line.get_label(): line for line in time.lines if not line.get_label().startswith("_")}
    places = {label: (line.get_xdata()[0], line.get_ydata()[0]) for label, line in points.items()}
    assert places == {"FAST, 0-shot": (2.0, 50.0), "SLOW*, 0-shot": (200.0, 75.0)}, "no quality or no cost: no point"
    assert len({line.get_marker() for line in points.values()}) == 2
    assert [tuple(line.get_xdata()) for line in time.lines if line.get_marker() == "None"] == [(1, 4), (100, 400)]
    assert {line.get_xdata()[0] for line in memory.lines} == {3.0}
    assert "GPU, fp16, wall" in caption and "*: random weights" in caption


def test_times_of_two_devices_are_refused(run):
    efficiency.save(run, measured("slow", 20.0, device="another"))
    with pytest.raises(RecordError, match="two devices"):
        cost.draw(*cost.collect([run], "toys"))


def test_what_is_missing_is_named(run, tmp_path):
    with pytest.raises(UnknownName, match="dataset"):
        cost.collect([run], "mvtec")
    for path in (run / "efficiency").iterdir():
        path.unlink()
    efficiency.save(run, measured("other", 1.0))
    with pytest.raises(RecordError, match="both a measured cost and a quality on toys"):
        cost.draw(*cost.collect([run], "toys"))
