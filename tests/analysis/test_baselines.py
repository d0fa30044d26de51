"""The regression gate: what passes, what falls, and that planted mistakes are caught."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from zsadbench.analysis import gate
from zsadbench.analysis.gate import GateLine
from zsadbench.components import mutual, prompts
from zsadbench.errors import RecordError, UsageError
from zsadbench.protocol import EvaluationProtocol
from zsadbench.records import results
from zsadbench.records.results import Record
from zsadbench.running import plan, runner
from zsadbench.running.progress import Silent
from zsadbench.running.request import Request
from zsadbench.tables.gate import render

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "results" / "baselines" / "demo.json"
WORKFLOW = ROOT / ".github" / "workflows" / "regression.yml"


def run(out: Path, *methods: str, **changes: dict) -> list[Record]:
    """Run methods on the part of the demo set that the committed baseline is about."""
    request = Request(methods, ["demo"], out, encoder="demo", changes=changes, protocol=EvaluationProtocol(limit=8))
    runner.run(plan.make_plan(request), request, Silent())
    return results.load_run(out)


def part(method: str) -> gate.Baseline:
    """Return the committed baseline of one method."""
    whole = gate.load(DEMO)
    return replace(whole, cells={cell: numbers for cell, numbers in whole.cells.items() if f"/{method}/" in cell})


def fallen(records: list[Record], method: str) -> list[GateLine]:
    return [change for change in gate.compare(records, part(method), {}) if change.fails]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:dbscan")  # the demo's sentences nearly agree
def test_every_method_keeps_its_baseline_on_the_demo_subset(tmp_path: Path) -> None:
    """Trained ones with the weights that ship."""
    records, baseline = run(tmp_path, "all"), gate.load(DEMO)
    assert {f"{record.dataset}/{record.method}/{record.category}" for record in records} == baseline.cells.keys()
    changes = gate.compare(records, baseline, {})
    assert not [change for change in changes if change.fails], render(changes, baseline)


def test_a_wrong_template_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = prompts.get

    def wrong(name: str) -> prompts.PromptList:
        found = right(name)
        return replace(found, abnormal=found.normal, normal=found.abnormal)

    monkeypatch.setattr(prompts, "get", wrong)
    assert fallen(run(tmp_path, "clip_surgery"), "clip_surgery")


def test_a_shifted_layer_is_caught(tmp_path: Path) -> None:
    assert fallen(run(tmp_path, "musc", musc={"layers": (2, 5, 8, 11)}), "musc")


def test_an_off_by_one_in_pooling_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = mutual.aggregate

    def shifted(tokens: torch.Tensor, side: int) -> torch.Tensor:
        grid = round(tokens.shape[1] ** 0.5)
        return right(tokens, side).unflatten(1, (grid, grid)).roll(1, dims=1).flatten(1, 2)

    monkeypatch.setattr(mutual, "aggregate", shifted)
    changes = fallen(run(tmp_path, "musc"), "musc")
    assert any(change.metric.startswith("pixel") for change in changes)


def record(category: str = "leather", **changes: object) -> Record:
    values = {
        "image": {"auroc": 0.9, "ap": None},
        "pixel": {"auroc": 0.8},
        "protocol": {"limit": 8, "precision": "fp32"},
        "data": {"sha256": f"images of {category}"},
        "encoder": {"spec": "demo", "sha256": "abc"},
        "environment": {"torch": "2.0"},
    }
    return Record("winclip", "demo", category, "done", **{**values, **changes})


BASE = gate.make([record("leather"), record("wood")], {"all": 0.5, "pixel auroc": 2.0})


@pytest.mark.parametrize(
    ("changes", "verdicts"),
    [
        ({}, []),
        ({"image": {"auroc": 0.8951, "ap": None}}, ["moved"]),
        ({"image": {"auroc": 0.8999, "ap": None}}, []),
        ({"image": {"auroc": 0.8949, "ap": None}}, ["worse"]),
        ({"image": {"auroc": 0.9051, "ap": None}}, ["better"]),
        ({"pixel": {"auroc": 0.7801}}, ["moved"]),
        ({"pixel": {"auroc": 0.7799}}, ["worse"]),
        ({"pixel": {"auroc": None}}, ["worse"]),
        ({"pixel": {}}, ["worse"]),
        ({"image": {"auroc": 0.9, "ap": 0.1}}, ["better"]),
        ({"status": "failed", "error": "Traceback\nno memory"}, ["missing"]),
    ],
)
def test_a_change_is_judged_by_its_metrics_tolerance(changes: dict, verdicts: list[str]) -> None:
    found = gate.compare([record("wood"), replace(record("leather"), **changes)], BASE, {})
    assert [change.verdict for change in found] == verdicts


def test_missing_and_new_cells_are_told_and_failures_come_first() -> None:
    found = gate.compare([record("leather", image={"auroc": 1.0, "ap": None}), record("pill")], BASE, {})
    assert [(change.verdict, change.cell.rpartition("/")[2]) for change in found] == [
        ("missing", "wood"),
        ("new", "pill"),
        ("better", "leather"),
    ]
    text = render(found, BASE)
    assert "1 worse or missing" in text and "not in the run" in text and "+10.00" in text


def test_the_command_line_overrides_the_baselines_tolerance() -> None:
    lower = [record("wood"), record("leather", pixel={"auroc": 0.77})]
    assert gate.compare(lower, BASE, {})[0].fails
    assert not gate.compare(lower, BASE, {"pixel auroc": 3.5})[0].fails
    with pytest.raises(UsageError, match=r"pixel aurok: .* it has image ap, image auroc, pixel auroc"):
        gate.compare(lower, BASE, {"pixel aurok": 1.0})


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"protocol": {"limit": None, "precision": "fp32"}}, "differ in protocol: limit is None .* and 8"),
        ({"data": {"sha256": "others"}}, "differ in images: demo/leather is 'others'"),
    ],
)
def test_runs_of_another_protocol_or_other_images_are_refused(other: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        gate.compare([record("leather", **other)], BASE, {})


def test_other_weights_and_versions_are_notes() -> None:
    changed = record(encoder={"spec": "demo", "sha256": "xyz"}, environment={"torch": "2.1"})
    assert gate.notes([changed], BASE) == [
        "demo is xyz; it was abc in the baseline's run.",
        "torch is 2.1; it was 2.0 in the baseline's run.",
    ]
    assert gate.notes([record()], BASE) == []


def test_a_baseline_survives_its_file_and_needs_a_finished_run(tmp_path: Path) -> None:
    path = tmp_path / "base.json"
    gate.save(BASE, path)
    assert gate.load(path) == BASE
    with pytest.raises(RecordError, match=r"1 unfinished cells, such as demo/winclip/pill"):
        gate.make([record(), Record("winclip", "demo", "pill", "failed", "no")], {})
    with pytest.raises(RecordError, match="got no cells"):
        gate.make([], {})


@pytest.mark.parametrize("text", [None, "{", "[]", '{"cells": {}, "tolerance": {}, "format": 99}'])
def test_an_unreadable_baseline_is_a_sentence_with_its_name(text: str | None, tmp_path: Path) -> None:
    path = tmp_path / "base.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(RecordError, match=r"base\.json .*--update"):
        gate.load(path)


def test_tolerances_are_points_by_metric() -> None:
    assert gate.parse_tolerance(["0.5", "pixel.ap=1"]) == {"all": 0.5, "pixel ap": 1.0}
    for wrong in ("x", "pixel.ap=", "-1", "pixel.ap=200", "nan"):
        with pytest.raises(UsageError, match="expected points of 0 to 100"):
            gate.parse_tolerance([wrong])


@pytest.mark.slow
def test_the_workflows_own_steps_pass_a_good_run_and_stop_a_bad_one(tmp_path: Path) -> None:
    steps = yaml.safe_load(WORKFLOW.read_text())["jobs"]["gate"]["steps"]
    script = "\n".join(step["run"] for step in steps if step.get("name") in ("Run", "Compare with the baseline"))
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "METHODS": "constant", "DATASETS": "demo", "PLUGINS": "", "LIMIT": "2", "BASELINE": "base.json",
        "GITHUB_STEP_SUMMARY": "summary.md",
    }  # fmt: skip
    update = script.replace("| tee", "--update | tee")
    codes = [shell(one, tmp_path, environment) for one in (update, script)]
    baseline = json.loads((tmp_path / "base.json").read_text())
    baseline["cells"]["demo/constant/wood"]["image auroc"] = 0.9
    (tmp_path / "base.json").write_text(json.dumps(baseline))
    assert [*codes, shell(script, tmp_path, environment)] == [0, 0, 1]
    assert "-40.00" in (tmp_path / "summary.md").read_text()


def shell(script: str, folder: Path, environment: dict[str, str]) -> int:
    return subprocess.run(["bash", "-eo", "pipefail", "-c", script], cwd=folder, env=environment).returncode
