"""What a run does with finished cells: leaves them, runs them again and says why, or refuses to replace them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import zsadbench
from finished import PARTS
from toy_tree import save, write_tree

from zsadbench.analysis import gate
from zsadbench.errors import ExecutorError, RecordError, UsageError
from zsadbench.protocol import EvaluationProtocol
from zsadbench.records import results, saved_maps
from zsadbench.running import executors, resume, runner
from zsadbench.running.plan import make_plan
from zsadbench.running.planned import Plan
from zsadbench.running.progress import Silent
from zsadbench.running.request import Request
from zsadbench.support import files, source

METHODS = ["constant", "good_mean"]


def ask(root: Path, out: Path, wanted=METHODS, **options) -> Request:
    options.setdefault("protocol", EvaluationProtocol(batch_size=4))
    return Request(methods=wanted, datasets=["mvtec"], data_root=root, out=out, **options)


def run(root: Path, out: Path, wanted=METHODS, **options) -> tuple[Plan, runner.Summary]:
    request = ask(root, out, wanted, **options)
    plan = make_plan(request)
    return plan, runner.run(plan, request, Silent())


def contents(out: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name != "log.jsonl"
    }


def reasons(plan: Plan) -> list[str]:
    """Return what a plan says of finished cells."""
    return [finding.message for finding in plan.findings if finding.kind == "finished cells"]


@pytest.fixture(scope="module")
def finished(mvtec_tree, toy_plugins, tmp_path_factory) -> Path:
    """A finished run of two methods on two categories; copy it."""
    out = tmp_path_factory.mktemp("finished")
    done = zsadbench(
        "run", "--methods", ",".join(METHODS), "--datasets", "mvtec", "--data-root", mvtec_tree, "--batch-size", 4,
        "--plugins", toy_plugins, "--out", out, "--device", "cpu", "--quiet",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture
def out(finished, tmp_path, toys) -> Path:
    """A copy of the finished run, and the toy methods in this process."""
    return Path(shutil.copytree(finished, tmp_path / "out"))


# ---- Nothing differs


def test_the_same_request_finds_every_cell_done_and_says_nothing(mvtec_tree, out):
    plan, summary = run(mvtec_tree, out)
    assert (summary.skipped, summary.counts, reasons(plan)) == (4, {}, [])


def test_a_record_holds_all_that_its_fingerprint_is_made_of(mvtec_tree, out):
    (out / "mvtec/good_mean/bottle.json").unlink()
    request = ask(mvtec_tree, out)
    (cell,) = make_plan(request).groups[0]
    runner.run(make_plan(request), request, Silent())
    record = results.load(cell.path(out))
    assert record.fingerprint == cell.fingerprint == files.fingerprint(cell.parts)
    assert record.code == cell.parts["code"] and record.options == cell.parts["options"]
    assert set(cell.parts) == {"cell", "protocol", "options", "data", "weights", "checkpoint", "code"}
    assert not resume.look(cell.path(out), cell.parts, request).changes


def test_another_batch_size_is_no_other_question_unless_images_of_a_batch_see_each_other(mvtec_tree, out):
    plan, summary = run(mvtec_tree, out, protocol=EvaluationProtocol(batch_size=2))
    assert summary.skipped == 4
    assert reasons(plan) == [
        "4 finished cells kept, though made with batch size 4 (now 2); to run again, delete the records."
    ]
    path = out / "mvtec/good_mean/bottle.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"setting": record["setting"] | {"scope": "batch"}}))
    with pytest.raises(UsageError, match=r"batch_size was 4, now 2 \(good_mean on mvtec/bottle\)"):
        run(mvtec_tree, out, protocol=EvaluationProtocol(batch_size=2))


def test_other_versions_and_devices_are_told_and_change_nothing(mvtec_tree, out):
    path = out / "mvtec/good_mean/bottle.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"environment": record["environment"] | {"torch": "2.0.0"}}))
    before = contents(out)
    plan, summary = run(mvtec_tree, out)
    assert (summary.skipped, summary.counts) == (4, {}) and contents(out) == before
    assert len(reasons(plan)) == 1 and reasons(plan)[0].startswith(
        "1 finished cell kept, though made with torch 2.0.0 (now "
    )


# ---- Something else was asked


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"changes": {"good_mean": {"level": "0.7"}}}, r"2 finished cells .*: good_mean\.level was 0\.5, now 0\.7 \("),
        ({"protocol": EvaluationProtocol(batch_size=4, limit=4)}, r"4 finished cells .*: limit was none, now 4 \("),
        (
            {"protocol": EvaluationProtocol(batch_size=4, seed=1, order="dataset")},
            "order was shuffled, now dataset .*; seed was 0",
        ),
    ],
)
def test_other_options_or_another_protocol_are_refused_before_anything_is_written(mvtec_tree, out, options, words):
    before = contents(out)
    with pytest.raises(UsageError, match=words) as caught:
        run(mvtec_tree, out, **options)
    assert "Choose another --out" in str(caught.value) and "--overwrite" in str(caught.value)
    assert contents(out) == before
    _, summary = run(mvtec_tree, out, overwrite=True, **options)
    assert summary.counts["done"] >= 2 and summary.failed == 0


def test_a_typing_error_in_encoder_touches_no_finished_record(mvtec_tree, tmp_path):
    common = ["run", "--methods", "winclip", "--datasets", "mvtec", "--data-root", mvtec_tree, "--categories", "bottle"]
    common += ["--out", tmp_path / "out", "--quiet", "--device", "cpu"]
    assert zsadbench(*common, "--encoder", "tiny").returncode == 0
    before = contents(tmp_path / "out")
    for insist in ([], ["--overwrite"]):
        done = zsadbench(*common, "--encoder", "tinny", *insist)
        assert done.returncode != 0 and "tinny" in done.stderr, done.stderr
        assert {name: found for name, found in contents(tmp_path / "out").items() if "/failed/" not in name} == before


def test_a_limit_beside_finished_cells_of_all_images_is_refused_because_no_table_could_show_both(mvtec_tree, out):
    before = contents(out)
    for insist in (False, True):
        with pytest.raises(
            UsageError, match=r"such as constant on mvtec/bottle: limit is none there, 4 now\. One table"
        ):
            run(mvtec_tree, out, ["good_pair"], protocol=EvaluationProtocol(batch_size=4, limit=4), overwrite=insist)
    assert contents(out) == before
    assert (
        run(mvtec_tree, out, ["good_pair"], protocol=EvaluationProtocol(batch_size=2, precision="bf16"))[1].failed == 0
    )
    assert zsadbench("table", out).returncode == 0, "speed and precision may differ in a table"


def test_whoever_edits_a_method_may_edit_the_defaults_of_its_options(mvtec_tree, out, monkeypatch):
    request = ask(mvtec_tree, out, changes={"good_mean": {"level": "0.7"}})
    monkeypatch.setattr(source, "of_plugin", lambda plugin: "0" * 64)
    notes = reasons(make_plan(request))
    assert any(one.startswith("2 cells will run again, because good_mean.level was 0.5, now 0.7: ") for one in notes)
    assert any("because the code of the method good_mean changed (" in one for one in notes)


# ---- What the files hold differs


def test_each_reason_to_run_again_is_one_line_with_old_and_new(mvtec_tree, out, monkeypatch):
    monkeypatch.setattr(source, "of_harness", lambda parts: "12345678" + "0" * 56)
    old = results.load(out / "mvtec/good_mean/bottle.json").code["zsadbench"]
    plan = make_plan(ask(mvtec_tree, out))
    assert plan.cells == 4
    assert reasons(plan) == [
        f"4 cells will run again, because the code of zsadbench changed ({old[:8]}, now 12345678): "
        "constant on mvtec/bottle, good_mean on mvtec/bottle, constant on mvtec/grid, and 1 more."
    ]


def test_corrected_masks_are_measured_again_and_the_note_names_the_data_set(tmp_path, toys):
    write_tree(tmp_path / "data/mvtec")
    run(tmp_path / "data", tmp_path / "out")
    before = contents(tmp_path / "out")
    mask = np.zeros((64, 64), np.uint8)
    mask[:10] = 255
    save(tmp_path / "data/mvtec/grid/ground_truth/hole/001_mask.png", mask)
    plan, summary = run(tmp_path / "data", tmp_path / "out")
    assert (summary.skipped, summary.counts) == (2, {"done": 2})
    (note,) = reasons(plan)
    assert note.startswith("2 cells will run again, because the images or masks of mvtec changed (")
    after = contents(tmp_path / "out")
    assert {name for name in after if after[name] != before[name]} >= {"mvtec/good_mean/grid.json"}


@pytest.mark.parametrize("suffix", [results.SCORES, results.PIXELS])
@pytest.mark.parametrize("damage", ["missing", "cut", "of another cell"])
def test_a_cell_whose_files_are_not_its_own_runs_again(mvtec_tree, out, suffix, damage):
    before = contents(out)
    path = out / f"mvtec/good_mean/bottle{suffix}"
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-2] if damage == "cut" else path.with_name(f"grid{suffix}").read_bytes())
    plan, summary = run(mvtec_tree, out)
    assert summary.counts == {"done": 1} and contents(out) == before
    assert reasons(plan) == [
        "1 cell will run again, because a file beside the record is missing or not its own: good_mean on mvtec/bottle."
    ]


def test_records_of_an_earlier_version_still_print_and_run_again(mvtec_tree, out):
    table = zsadbench("table", out).stdout
    for path in out.glob("*/*/*.json"):
        record = json.loads(path.read_text())
        del record["code"], record["files"]
        path.write_text(json.dumps(record | {"format": 1}))
    assert zsadbench("table", out).stdout == table
    told = zsadbench("table", out, "--ci")
    assert (
        told.returncode == 1 and "earlier version of zsadbench" in told.stderr and "Run the cell again" in told.stderr
    )
    with pytest.raises(UsageError, match="limit was none, now 4"):
        make_plan(ask(mvtec_tree, out, protocol=EvaluationProtocol(batch_size=4, limit=4)))
    plan = make_plan(ask(mvtec_tree, out))
    assert plan.cells == 4 and len(reasons(plan)) == 1
    assert reasons(plan)[0].startswith("4 cells will run again, because an earlier version of zsadbench made them: ")


# ---- Failures and leftovers


def fail_at(out: Path, root: Path) -> None:
    """Run again one finished cell while one of its images is damaged."""
    image = root / "mvtec/bottle/test/good/001.png"
    whole = image.read_bytes()
    image.write_bytes(b"not an image")
    (out / "mvtec/good_mean/bottle.csv").unlink()
    try:
        _, summary = run(root, out, ["good_mean"], categories=["bottle"])
    finally:
        image.write_bytes(whole)
    assert summary.counts == {"failed": 1} and summary.failed == 1


def test_a_failed_attempt_never_replaces_a_finished_record_and_tables_tell_it(mvtec_tree, out):
    before = contents(out)
    numbers = zsadbench("table", out).stdout.splitlines()
    fail_at(out, mvtec_tree)
    assert results.load(out / "mvtec/good_mean/failed/bottle.json").status == "failed"
    record = next(one for one in results.load_run(out) if (one.method, one.category) == ("good_mean", "bottle"))
    assert record.status == "done" and "001.png" in record.failure
    assert contents(out)["mvtec/good_mean/bottle.json"] == before["mvtec/good_mean/bottle.json"]
    shown = zsadbench("table", out).stdout.splitlines()
    assert [line for line in shown if line.startswith("|")] == [line for line in numbers if line.startswith("|")]
    assert (
        sum("good_mean on bottle: a newer attempt failed, shown is the result before it." in line for line in shown)
        == 1
    )
    with pytest.raises(RecordError, match="A baseline needs a run whose cells are all finished"):
        gate.make(results.load_run(out), {})


def test_a_cell_that_is_finished_after_all_has_no_failure_left(mvtec_tree, out):
    before = contents(out)
    fail_at(out, mvtec_tree)
    _, summary = run(mvtec_tree, out)
    assert summary.counts == {"done": 1} and contents(out) == before
    results.save_failure(out, results.Record("good_mean", "mvtec", "grid", "failed", error="before it was done"))
    assert run(mvtec_tree, out)[1].skipped == 4
    assert contents(out) == before and not (out / "mvtec/good_mean/failed").exists()


def test_the_gate_falls_where_the_newest_attempt_failed(mvtec_tree, out):
    baseline = gate.make(results.load_run(out), {"all": 0.5})
    assert not gate.compare(results.load_run(out), baseline, {})
    fail_at(out, mvtec_tree)
    (change,) = gate.compare(results.load_run(out), baseline, {})
    assert change.fails and change.cell == "mvtec/good_mean/bottle" and "001.png" in change.reason


def test_no_file_of_an_older_record_stays_beside_another(tmp_path):
    record = results.Record("m", "d", "c", "done", fingerprint="a", **PARTS)
    everything = {results.SCORES: b"scores", results.PIXELS: b"pixels", results.MAPS: b"maps"}

    def names() -> list[str]:
        return sorted(path.name for path in (tmp_path / "d/m").iterdir())

    results.save(tmp_path, record, everything)
    results.save(tmp_path, record, {results.SCORES: b"scores"})
    assert names() == ["c.csv", "c.json", "c.maps.npz"], "maps of the same fingerprint are as good as before"
    results.save(tmp_path, results.Record("m", "d", "c", "done", fingerprint="b", **PARTS), {results.SCORES: b"scores"})
    assert names() == ["c.csv", "c.json"]
    (tmp_path / "d/m/c.json").unlink()
    results.save_failure(tmp_path, results.Record("m", "d", "c", "failed", error="no"))
    assert names() == ["c.json"]


def test_maps_that_are_missing_are_made_and_nothing_else(mvtec_tree, out, monkeypatch):
    before = contents(out)
    plan, summary = run(mvtec_tree, out, ["good_mean"], save_maps=True, categories=["bottle"])
    assert reasons(plan) == ["1 finished cell will be predicted again for its maps alone; its record stays."]
    assert summary.counts == {"done": 1}
    after = contents(out)
    assert set(after) - set(before) == {"mvtec/good_mean/bottle.maps.npz"} and before.items() <= after.items()
    _, summary = run(mvtec_tree, out, ["good_mean"], save_maps=True)
    assert summary.skipped == 1, "the maps of bottle are there"
    record = results.load(out / "mvtec/good_mean/grid.json")
    assert saved_maps.exist(out, record)
    (out / "mvtec/good_mean/grid.maps.npz").write_bytes(b"PK")
    assert run(mvtec_tree, out, ["good_mean"], save_maps=True)[1].skipped == 1 and saved_maps.exist(out, record)


def test_a_worker_with_other_code_is_refused(mvtec_tree, out, monkeypatch):
    (out / "mvtec/good_mean/bottle.json").unlink()
    (cell,) = make_plan(ask(mvtec_tree, out)).groups[0]
    executors.check_code([cell])
    monkeypatch.setattr(source, "of_harness", lambda parts: "0" * 64)
    with pytest.raises(ExecutorError, match="has other code of zsadbench or of good_mean than"):
        executors.check_code([cell])


def test_finished_on_the_way_by_another_process_is_kept_or_refused(mvtec_tree, out):
    """As if two runs with different options had been planned at once: the first to finish a cell keeps it."""
    path = out / "mvtec/good_mean/bottle.json"
    kept = path.read_bytes()
    path.unlink()
    options = {"wanted": ["good_mean"], "categories": ["bottle"]}
    first, same = (ask(mvtec_tree, out, **options) for _ in range(2))
    other = ask(mvtec_tree, out, **options, changes={"good_mean": {"level": "0.6"}})
    plans = {id(request): make_plan(request) for request in (first, same, other)}
    for request in (first, same):
        assert runner.run(plans[id(request)], request, Silent()).counts == {"done": 1}
        assert path.read_bytes() == kept
    assert runner.run(plans[id(other)], other, Silent()).counts == {"failed": 1}
    assert path.read_bytes() == kept
    assert "Another process changed this cell" in results.load(out / "mvtec/good_mean/failed/bottle.json").error
