"""The run loop: records, sharing, resume, and everything that can go wrong on the way."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_tree import save, write_tree

from zsadbench.data import reading
from zsadbench.encoders.transformer import TransformerEncoder
from zsadbench.errors import ContractError, DataError, RecordError, UnknownName, UsageError
from zsadbench.protocol import EvaluationProtocol
from zsadbench.records import results
from zsadbench.running import runner
from zsadbench.running.plan import make_plan
from zsadbench.running.request import Request
from zsadbench.support import files
from zsadbench.tables import quality


class Memory:
    """A Progress that only remembers."""

    def __init__(self):
        self.records, self.images, self.announced = [], 0, 0

    def begin(self, cells, images):
        self.announced = images

    def step(self, label, images):
        self.images += images

    def skip(self, images):
        self.announced -= images

    def finish_cell(self, recorded):
        self.records.append(recorded.record)


def run(root, out, methods=("good_mean",), progress=None, **options):
    protocol = options.pop("protocol", EvaluationProtocol(batch_size=4))
    request = Request(methods=methods, datasets=["mvtec"], data_root=root, out=out, protocol=protocol, **options)
    plan = make_plan(request)
    return runner.run(plan, request, progress or Memory())


def contents(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.glob("*/*/*")) if p.suffix in (".json", ".csv")}


def test_a_run_writes_one_record_and_one_scores_file_a_cell(mvtec_tree, tmp_path, toys):
    progress = Memory()
    summary = run(mvtec_tree, tmp_path, ["good_mean", "constant"], progress)
    assert (summary.counts, summary.skipped, summary.failed) == ({"done": 4}, 0, 0)
    assert sorted(contents(tmp_path)) == [
        f"mvtec/{method}/{category}.{suffix}"
        for method in ("constant", "good_mean") for category in ("bottle", "grid") for suffix in ("csv", "json")
    ]  # fmt: skip
    assert progress.images == progress.announced == 4 * 13
    record = results.load(tmp_path / "mvtec/good_mean/bottle.json")
    assert record.pixel["auroc"] > 0.95, "bright squares are easy for the mean of the channels"
    assert record.details["normal"] == 5 and record.details["anomalous"] == 8
    assert len(results.load_scores(tmp_path, record)) == 13
    constant = results.load(tmp_path / "mvtec/constant/bottle.json")
    assert constant.image["auroc"] == constant.pixel["auroc"] == 0.5
    assert constant.pixel["aupro"] == pytest.approx(0.15)


def test_a_record_tells_which_options_are_not_the_presets(mvtec_tree, tmp_path, toys):
    options = {"encoder": "tiny", "categories": ["grid"]}
    run(mvtec_tree, tmp_path / "a", ["musc"], changes={"musc": {"neighbourhoods": "1", "rscin": "true"}}, **options)
    changed = results.load(tmp_path / "a/mvtec/musc/grid.json").changed
    assert changed["neighbourhoods"] == [1, 3, 5] and changed["encoder"].startswith("open_clip:")
    assert "rscin" not in changed, "it is given, but as the preset has it"
    run(mvtec_tree, tmp_path / "b", ["constant"], categories=["grid"])
    assert results.load(tmp_path / "b/mvtec/constant/grid.json").changed == {}


def test_records_hold_no_time_and_no_path_so_that_equal_runs_are_equal_bytes(mvtec_tree, tmp_path, toys):
    run(mvtec_tree, tmp_path / "a", ["good_mean", "good_pair"])
    run(mvtec_tree, tmp_path / "b", ["good_mean", "good_pair"])
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert str(mvtec_tree) not in (tmp_path / "a/mvtec/good_mean/bottle.json").read_text()


def test_finished_cells_are_skipped_and_only_missing_or_changed_ones_run(mvtec_tree, tmp_path, toys):
    run(mvtec_tree, tmp_path, ["good_mean"])
    before = contents(tmp_path)
    (tmp_path / "mvtec/good_mean/grid.json").unlink()
    summary = run(mvtec_tree, tmp_path, ["good_mean"])
    assert (summary.skipped, summary.counts) == (1, {"done": 1})
    assert contents(tmp_path) == before
    changed = run(mvtec_tree, tmp_path, ["good_mean"], changes={"good_mean": {"level": "0.7"}}, overwrite=True)
    assert (changed.skipped, changed.counts) == (0, {"done": 2})
    reseeded = run(
        mvtec_tree, tmp_path, ["good_mean"], protocol=EvaluationProtocol(batch_size=4, seed=1), overwrite=True
    )
    assert reseeded.skipped == 0


def test_a_damaged_record_is_run_again(mvtec_tree, tmp_path, toys):
    run(mvtec_tree, tmp_path, ["good_mean"])
    before = contents(tmp_path)
    (tmp_path / "mvtec/good_mean/grid.json").write_text("{")
    assert run(mvtec_tree, tmp_path, ["good_mean"]).counts == {"done": 1}
    assert contents(tmp_path) == before


def test_sharing_changes_no_number_bit_for_bit(mvtec_tree, tmp_path, toys):
    shared = ["winclip", "musc"]
    run(mvtec_tree, tmp_path / "together", shared, encoder="tiny")
    for name in shared:
        run(mvtec_tree, tmp_path / "apart", [name], encoder="tiny")
    assert contents(tmp_path / "together") == contents(tmp_path / "apart")


def test_methods_that_agree_share_one_pass_an_image(mvtec_tree, tmp_path, monkeypatch):
    passes = []
    original = TransformerEncoder.encode

    def encode(self, images, request):
        passes.append(len(images))
        return original(self, images, request)

    monkeypatch.setattr(TransformerEncoder, "encode", encode)
    run(mvtec_tree, tmp_path, ["winclip", "musc"], encoder="tiny", categories=["bottle"])
    assert sum(passes) == 13


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("bad_nan", r"scores hold NaN or infinity for .*crack"),
        ("bad_shape", r"maps have shape \[4, 4\]; expected \[4, h, w\]"),
        ("bad_dtype", "maps have dtype torch.float64; expected torch.float32"),
        ("bad_crash", "IndexError"),
    ],
)
def test_a_method_that_breaks_its_contract_fails_alone_and_the_run_goes_on(mvtec_tree, tmp_path, toys, name, words):
    summary = run(mvtec_tree, tmp_path, [name, "good_mean"])
    assert summary.counts == {"failed": 2, "done": 2} and summary.failed == 2
    record = results.load(tmp_path / f"mvtec/{name}/bottle.json")
    assert record.status == "failed" and record.image == {}
    assert re.search(words, record.error)


def test_fail_fast_stops_at_the_first_failed_cell(mvtec_tree, tmp_path, toys):
    with pytest.raises(ContractError):
        run(mvtec_tree, tmp_path, ["bad_shape"], fail_fast=True)


def test_a_failed_cell_is_tried_again_by_the_next_run(mvtec_tree, tmp_path, toys):
    run(mvtec_tree, tmp_path, ["bad_shape"])
    assert run(mvtec_tree, tmp_path, ["bad_shape"]).counts == {"failed": 2}


def test_a_corrupt_image_fails_its_category_alone_and_is_named(tmp_path, toys):
    write_tree(tmp_path / "data/mvtec")
    (tmp_path / "data/mvtec/grid/test/good/001.png").write_bytes(b"not an image")
    summary = run(tmp_path / "data", tmp_path / "out", ["good_mean", "constant"])
    assert summary.counts == {"done": 3, "failed": 1}, "the constant method reads no pixels of normal images"
    assert "grid/test/good/001.png" in results.load(tmp_path / "out/mvtec/good_mean/grid.json").error


def test_a_missing_mask_is_an_error_before_any_weights_are_loaded(tmp_path):
    write_tree(tmp_path / "data/mvtec")
    (tmp_path / "data/mvtec/grid/ground_truth/hole/001_mask.png").unlink()
    with pytest.raises(DataError, match="001"):
        run(tmp_path / "data", tmp_path / "out", ["winclip"], encoder="tiny")


def test_a_mask_of_another_size_is_an_error_with_both_sizes(tmp_path, toys):
    write_tree(tmp_path / "data/mvtec", categories=["grid"])
    save(tmp_path / "data/mvtec/grid/ground_truth/hole/001_mask.png", np.full((32, 60), 255, np.uint8))
    run(tmp_path / "data", tmp_path / "out", ["good_mean"])
    error = results.load(tmp_path / "out/mvtec/good_mean/grid.json").error
    assert "001_mask.png" in error and "60" in error and "64" in error


@pytest.mark.parametrize(("good", "bad"), [(0, 3), (3, 0)])
def test_a_category_with_one_class_has_undefined_metrics_never_zero(tmp_path, toys, good, bad):
    write_tree(tmp_path / "data/mvtec", categories=["grid"], good=good, bad=bad)
    run(tmp_path / "data", tmp_path / "out", ["good_mean"])
    record = results.load(tmp_path / "out/mvtec/good_mean/grid.json")
    assert record.status == "done" and record.image["auroc"] is None
    assert (record.pixel["aupro"] is None) == (bad == 0)


def test_wrong_names_and_paths_stop_before_anything_is_written(mvtec_tree, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(UnknownName, match=r"category of mvtec 'botle'\. Did you mean 'bottle'"):
        run(mvtec_tree, out, ["constant"], categories=["botle"])
    with pytest.raises(UnknownName, match="method 'constnt'"):
        run(mvtec_tree, out, ["constnt"])
    with pytest.raises(DataError, match="no folder found under"):
        run(tmp_path, out, ["constant"])
    with pytest.raises(UsageError, match="--set musc"):
        run(mvtec_tree, out, ["constant"], changes={"musc": {"rscin": "false"}})
    assert not out.exists()


def test_a_batch_method_scores_every_image_once_whatever_the_batch_size(mvtec_tree, tmp_path, toys):
    run(mvtec_tree, tmp_path, ["good_pair"], protocol=EvaluationProtocol(batch_size=3))
    record = results.load(tmp_path / "mvtec/good_pair/bottle.json")
    assert len({line.sample for line in results.load_scores(tmp_path, record)}) == 13
    assert record.protocol["batch_images"] == 2


@pytest.mark.parametrize("eval_size", [16, "native"])
def test_the_evaluation_size_is_the_methods_unless_the_protocol_says_otherwise(mvtec_tree, tmp_path, toys, eval_size):
    run(mvtec_tree, tmp_path, ["good_mean"], protocol=EvaluationProtocol(eval_size=eval_size), categories=["bottle"])
    record = results.load(tmp_path / "mvtec/good_mean/bottle.json")
    side = 64 if eval_size == "native" else eval_size
    assert record.details["pixel"]["positives"] + record.details["pixel"]["negatives"] == 13 * side**2


def test_a_trained_method_without_weights_reads_needs_a_checkpoint_and_is_no_failure(mvtec_tree, tmp_path):
    summary = run(mvtec_tree, tmp_path, ["april_gan"], encoder="tiny", fail_fast=True)
    assert summary.counts == {"needs_checkpoint": 2} and summary.failed == 0
    assert "--checkpoint april_gan=" in results.load(tmp_path / "mvtec/april_gan/bottle.json").error


def checkpoint(folder: Path, stages=4, width=64, joint=32) -> Path:
    generator = torch.Generator().manual_seed(0)
    state = {}
    for stage in range(stages):
        state[f"fc.{stage}.weight"] = torch.randn(joint, width, generator=generator) / 8
        state[f"fc.{stage}.bias"] = torch.zeros(joint)
    path = folder / "visa_pretrained.pth"
    torch.save({"trainable_linearlayer": state}, path)
    return path


def test_an_official_checkpoint_runs_and_its_training_set_is_in_the_record(mvtec_tree, tmp_path):
    options = {"checkpoints": {"april_gan": checkpoint(tmp_path)}, "encoder": "tiny", "categories": ["bottle"]}
    assert run(mvtec_tree, tmp_path / "out", ["april_gan"], **options).counts == {"done": 1}
    record = results.load(tmp_path / "out/mvtec/april_gan/bottle.json")
    assert record.setting["trained_on"] == ["visa"] and record.setting["leak"] is False


def test_a_checkpoint_that_has_seen_the_target_is_refused_unless_allowed_and_then_marked(mvtec_tree, tmp_path):
    options = {"checkpoints": {"april_gan.mvtec": checkpoint(tmp_path)}, "encoder": "tiny", "categories": ["bottle"]}
    summary = run(mvtec_tree, tmp_path / "out", ["april_gan.mvtec"], **options)
    assert summary.counts == {"refused": 1} and summary.failed == 1
    assert "trained on mvtec" in results.load(tmp_path / "out/mvtec/april_gan.mvtec/bottle.json").error
    run(mvtec_tree, tmp_path / "out", ["april_gan.mvtec"], allow_leak=True, **options)
    assert results.load(tmp_path / "out/mvtec/april_gan.mvtec/bottle.json").setting["leak"] is True


def test_a_checkpoint_of_another_architecture_names_the_tensor_and_both_shapes(mvtec_tree, tmp_path):
    options = {
        "checkpoints": {"april_gan": checkpoint(tmp_path, width=96)},
        "encoder": "tiny",
        "categories": ["bottle"],
    }
    run(mvtec_tree, tmp_path / "out", ["april_gan"], **options)
    error = results.load(tmp_path / "out/mvtec/april_gan/bottle.json").error
    assert "fc.0.weight" in error and "96" in error and "64" in error


def test_few_shot_references_are_recorded_and_too_few_are_not_possible(tmp_path):
    write_tree(tmp_path / "data/mvtec", categories=["bottle"])
    options = {"encoder": "tiny"}
    run(tmp_path / "data", tmp_path / "out", ["winclip.2shot", "winclip.4shot"], **options)
    two = results.load(tmp_path / "out/mvtec/winclip.2shot/bottle.json")
    assert two.setting["shots"] == 2 and len(set(two.setting["references"])) == 2
    four = results.load(tmp_path / "out/mvtec/winclip.4shot/bottle.json")
    assert four.status == "not_possible" and "has 3" in four.error


def test_a_disk_that_is_full_stops_the_run_and_keeps_what_is_finished(mvtec_tree, tmp_path, toys, monkeypatch):
    original = files.write_together

    def full(contents, stale=(), **how):
        if any("grid" in path.name for path in contents):
            raise RecordError("grid could not be written: No space left on device.")
        original(contents, stale, **how)

    monkeypatch.setattr(files, "write_together", full)
    with pytest.raises(RecordError, match="grid"):
        run(mvtec_tree, tmp_path, ["good_mean"])
    monkeypatch.undo()
    assert [record.category for record in results.load_run(tmp_path)] == ["bottle"]


def test_an_out_folder_that_cannot_be_made_is_a_sentence(mvtec_tree, tmp_path, toys):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RecordError, match="cannot be created"):
        run(mvtec_tree, tmp_path / "file" / "out", ["good_mean"])


def test_a_copy_with_other_counts_than_expected_is_announced_before_the_run(mvtec_tree, tmp_path, toys):
    plan = make_plan(Request(methods=["good_mean"], datasets=["mvtec"], data_root=mvtec_tree, out=tmp_path))
    assert len(plan.findings) == 1
    assert "bottle has 5 normal and 8 anomalous, not 20 and 63 (and 1 more category)" in plan.findings[0].message


def test_masks_may_be_binarised_as_the_reference_repositories_do(tmp_path, toys):
    write_tree(tmp_path / "data/mvtec", categories=["grid"])
    for path in (tmp_path / "data/mvtec/grid/ground_truth").rglob("*.png"):
        mask = np.zeros((64, 64), np.uint8)
        mask[:10], mask[10:20] = 255, 60  # a rim of grey below the dataset's threshold
        save(path, mask)
    positives = []
    for rule in ("dataset", "gt0"):
        out = tmp_path / rule
        run(tmp_path / "data", out, ["good_mean"], protocol=EvaluationProtocol(native_masks=rule, eval_size="native"))
        positives.append(results.load(out / "mvtec/good_mean/grid.json").details["pixel"]["positives"])
    assert positives == [8 * 10 * 64, 8 * 20 * 64]


def test_the_log_holds_what_differs_from_run_to_run(mvtec_tree, tmp_path, toys):
    run(mvtec_tree, tmp_path, ["good_mean"])
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["category"] for line in lines] == ["bottle", "grid"]
    assert all(line["seconds_predict"] >= 0 and line["images"] == 13 for line in lines)


def test_a_method_that_waits_for_the_whole_category_lets_every_image_be_decoded_once(mvtec_tree, tmp_path, monkeypatch):
    read, decoded = reading.read_picture, []
    monkeypatch.setattr(reading, "read_picture", lambda path, **how: decoded.append(path) or read(path, **how))
    protocol = EvaluationProtocol(batch_size=2)  # more chunks than a store keeps images of
    run(mvtec_tree, tmp_path, ["musc"], encoder="tiny", protocol=protocol, categories=("bottle",))
    assert len(decoded) == len(set(decoded)) == 13


def test_few_shot_methods_on_a_set_without_train_images_are_not_possible_and_not_failed(mvtec_tree, tmp_path):
    """Whichever method wants references: the run goes on, succeeds, and the table says why the row has no numbers."""
    root = tmp_path / "data"
    shutil.copytree(mvtec_tree / "mvtec", root / "mvtec", ignore=shutil.ignore_patterns("train", "grid"))
    request = {"encoder": "tiny", "categories": ["bottle"]}
    summary = run(root, tmp_path / "out", ["patchcore", "winclip.2shot", "constant"], **request)
    assert summary.counts == {"not_possible": 2, "done": 1} and summary.failed == 0
    text = quality.render(results.load_run(tmp_path / "out"))
    assert text.count("not possible on this set") == 4, "in each row, and below the table"
    assert "category bottle: 1 normal reference image is needed, the train split has none" in text
    assert "category bottle: 2 normal reference images are needed, the train split has none" in text
