"""Checkpoint folders and which of them a run takes, trains, or asks for."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_trained import write_method
from toy_tree import save, write_tree

from zsadbench.errors import UsageError, WeightsError
from zsadbench.protocol import EvaluationProtocol
from zsadbench.records import results
from zsadbench.running import runner, trainings
from zsadbench.running.plan import make_plan
from zsadbench.running.progress import Silent
from zsadbench.running.request import Request
from zsadbench.support import files, plugins, source
from zsadbench.training import checkpoints, loop
from zsadbench.training.request import TrainRequest


@pytest.fixture(scope="module")
def toy_folder(tmp_path_factory):
    return write_method(tmp_path_factory.mktemp("trained"))


@pytest.fixture(autouse=True)
def toy(toy_folder, forgotten_plugins):
    plugins.add_folder(toy_folder)


@pytest.fixture(scope="module")
def roots(tmp_path_factory) -> Path:
    """A data root with mvtec/ and, for the `folder` dataset, other/; there is no visa/."""
    root = tmp_path_factory.mktemp("roots")
    write_tree(root / "mvtec", categories=["bottle"])
    write_tree(root / "other", categories=["bottle"], seed=1)
    return root


def train(root, out, method="toy_trained.mvtec", **options):
    loop.train(TrainRequest(method, "mvtec", out, data_root=root, **options), loop.SilentTraining())
    return out


def plan_run(root, out, target, **options):
    """Plan, train what is missing, and run: returns the request and the plan that was run."""
    options.setdefault("methods", ["toy_trained"])
    request = Request(datasets=[target], out=out, data_root=root, protocol=EvaluationProtocol(batch_size=4), **options)
    plan = trainings.train_missing(make_plan(request), request, loop.SilentTraining())
    runner.run(plan, request, Silent())
    return plan


def records(out):
    return {(record.method, record.status) for record in results.load_run(out)}


def test_a_card_survives_the_way_to_disk_and_back(roots, tmp_path):
    folder = train(roots, tmp_path / "a")
    card = checkpoints.load(folder)
    assert card.weights_sha256 == files.sha256(folder / checkpoints.WEIGHTS)
    data = json.loads((folder / checkpoints.CARD).read_text())
    assert checkpoints.Card(**data) == card and data["format"] == checkpoints.FORMAT


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / "card.json").unlink(), "is no checkpoint: it has no card.json"),
        (lambda folder: (folder / "card.json").write_text("{"), r"card\.json is no card of a checkpoint"),
        (lambda folder: (folder / "card.json").write_text('{"method": "x"}'), r"card\.json is no card of a checkpoint"),
        (lambda folder: (folder / "weights.safetensors").write_bytes(b"x"), "has SHA-256 .* but its card says"),
        (lambda folder: (folder / "weights.safetensors").unlink(), r"is no whole checkpoint: .*weights\.safetensors"),
    ],
)
def test_a_damaged_checkpoint_is_named(roots, tmp_path, damage, words):
    folder = train(roots, tmp_path / "a")
    damage(folder)
    with pytest.raises(WeightsError, match=words):
        checkpoints.load(folder)


def test_our_own_checkpoint_runs_and_its_card_tells_what_it_was_trained_on(roots, tmp_path):
    folder = train(roots, tmp_path / "a")
    plan_run(roots, tmp_path / "out", f"folder={roots / 'other'}", checkpoints={"toy_trained": folder})
    (record,) = results.load_run(tmp_path / "out")
    assert (record.method, record.status, record.setting["trained_on"]) == ("toy_trained.mvtec", "done", ["mvtec"])
    assert record.setting["checkpoint_sha256"] == checkpoints.load(folder).weights_sha256


def test_a_record_tells_where_its_weights_are_not_those_of_the_options(roots, tmp_path):
    official = tmp_path / "official.pth"
    torch.save({"scale": torch.ones(1), "shift": torch.zeros(1)}, official)
    kinds = {
        "": train(roots, tmp_path / "ours"),
        "another recipe": train(roots, tmp_path / "short", epochs=1),
        "at most 4 images": train(roots, tmp_path / "few", limit=4),
        "a file of unknown origin": official,
    }
    for told, given in kinds.items():
        out = tmp_path / f"out {told}"
        plan_run(
            roots, out, f"folder={roots / 'other'}", methods=["toy_trained.mvtec"], checkpoints={"toy_trained": given}
        )
        (record,) = results.load_run(out)
        assert record.status == "done"
        found = record.setting["checkpoint"]
        assert (told in found and found.startswith("its ")) if told else found == "", found


def test_a_checkpoint_that_has_seen_the_target_is_refused_by_its_card(roots, tmp_path):
    folder = train(roots, tmp_path / "a")
    plan_run(roots, tmp_path / "out", "mvtec", checkpoints={"toy_trained": folder})
    assert records(tmp_path / "out") == {("toy_trained.mvtec", "refused")}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"changes": {"toy_trained": {"width": "3"}}}, "width is 1 on its card, but 3 here"),
        ({"methods": ["april_gan"], "encoder": "tiny"}, "method is 'toy_trained' on its card, but 'april_gan' here"),
        ({"methods": ["toy_trained.visa"]}, "was trained on mvtec, but toy_trained means trained on visa"),
    ],
)
def test_a_checkpoint_of_another_kind_stops_the_run_before_it_starts(roots, tmp_path, options, words):
    folder = train(roots, tmp_path / "a")
    name = options.get("methods", ["toy_trained"])[0]
    with pytest.raises(UsageError, match=words):
        plan_run(roots, tmp_path / "out", "mvtec", checkpoints={name: folder}, **options)
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_of_another_encoder_stops_the_run(roots, tmp_path):
    folder = train(roots, tmp_path / "a", "april_gan.mvtec", encoder="tiny", epochs=1)
    with pytest.raises(UsageError, match="encoder is 'tiny' on its card, but 'demo' here"):
        plan_run(
            roots, tmp_path / "out", "mvtec", methods=["april_gan"], encoder="demo", checkpoints={"april_gan": folder}
        )


def test_options_that_training_ignores_do_not_keep_a_checkpoint_from_being_used(roots, tmp_path):
    train(roots, tmp_path / "checkpoints" / "any_name")
    target = f"folder={roots / 'other'}"
    changed = {"toy_trained": {"sigma": "2"}}
    plan = plan_run(roots, tmp_path / "out", target, checkpoint_folder=tmp_path / "checkpoints", changes=changed)
    assert not plan.trainings and records(tmp_path / "out") == {("toy_trained.mvtec", "done")}
    other = {"toy_trained": {"width": "3"}}
    plan_run(roots, tmp_path / "wide", target, checkpoint_folder=tmp_path / "checkpoints", changes=other)
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2, "another width is another training"


def test_of_several_checkpoints_that_suit_the_least_seed_is_taken_and_partial_ones_never(roots, tmp_path):
    folder = tmp_path / "checkpoints"
    train(roots, folder / "a", limit=4)
    train(roots, folder / "b", seed=2)
    train(roots, folder / "c", seed=1)
    train(roots, folder / "d", epochs=1)
    target = f"folder={roots / 'other'}"
    plan = plan_run(roots, tmp_path / "out", target, checkpoint_folder=folder)
    assert plan.groups[0][0].planned.checkpoint == (folder / "c" / checkpoints.WEIGHTS,)


def test_a_run_trains_what_is_missing_once_and_then_finds_it(roots, tmp_path):
    target, folder = f"folder={roots / 'other'}", tmp_path / "checkpoints"
    plan = plan_run(roots, tmp_path / "out", target, checkpoint_folder=folder)
    assert not plan.trainings and records(tmp_path / "out") == {("toy_trained.mvtec", "done")}
    (made,) = folder.iterdir()
    assert made.name.startswith("toy_trained.mvtec-") and checkpoints.load(made).trained_on == ["mvtec"]
    again = plan_run(roots, tmp_path / "out", target, checkpoint_folder=folder)
    assert again.cells == 0 and len(again.done) == 1


def test_without_data_or_with_no_train_the_row_needs_a_checkpoint_and_names_the_command(roots, tmp_path):
    for target, options in (("mvtec", {}), (f"folder={roots / 'other'}", {"train": False})):
        out = tmp_path / target[:3]
        plan = plan_run(roots, out, target, checkpoint_folder=tmp_path / "checkpoints", **options)
        assert not plan.trainings
        (record,) = results.load_run(out)
        assert record.status == "needs_checkpoint"
        trained_on = "visa" if target == "mvtec" else "mvtec"
        assert (
            f"--dataset {trained_on} --data-root {roots} --out " in record.error and "zsadbench train" in record.error
        )
    assert not (tmp_path / "checkpoints").exists()


def test_a_training_that_fails_fails_its_cells_alone_and_says_why(roots, tmp_path):
    changes = {"toy_trained": {"explode": "bottle"}}
    target = f"folder={roots / 'other'}"
    plan_run(
        roots, tmp_path / "out", target, methods=["toy_trained", "constant"], changes=changes,
        checkpoint_folder=tmp_path / "checkpoints",
    )  # fmt: skip
    assert records(tmp_path / "out") == {("toy_trained.mvtec", "failed"), ("constant", "done")}
    failed = next(record for record in results.load_run(tmp_path / "out") if record.status == "failed")
    assert "the loss is no finite number" in failed.error


def test_the_preset_follows_each_dataset_of_a_run_and_a_named_one_does_not(roots, tmp_path):
    request = Request(
        methods=["toy_trained"], datasets=["mvtec", f"folder={roots / 'other'}"], out=tmp_path, data_root=roots
    )
    names = {cell.dataset.name: cell.planned.name for group in make_plan(request).groups for cell in group}
    assert names == {"mvtec": "toy_trained", "folder.other": "toy_trained.mvtec"}, (
        "the default preset is trained on VisA"
    )
    named = Request(methods=["toy_trained.mvtec"], datasets=["mvtec"], out=tmp_path, data_root=roots)
    assert {cell.planned.name for group in make_plan(named).groups for cell in group} == {"toy_trained.mvtec"}


def test_options_of_the_command_line_may_call_the_default_preset_by_its_name(roots, tmp_path):
    request = Request(
        methods=["toy_trained"], datasets=["mvtec"], out=tmp_path, data_root=roots,
        changes={"toy_trained": {"sigma": "1", "width": "2"}, "toy_trained.visa": {"sigma": "3"}},
    )  # fmt: skip
    ((cell,),) = make_plan(request).groups
    assert (cell.planned.config.sigma, cell.planned.config.width) == (3, 2)
    with pytest.raises(UsageError, match=r"--set toy_trained\.mvtec: no such method in this run"):
        make_plan(Request(["toy_trained"], ["mvtec"], tmp_path, roots, changes={"toy_trained.mvtec": {"sigma": "1"}}))


@pytest.mark.parametrize("how", ["files", "folder"])
def test_weights_may_be_several_files_or_a_folder_of_them(roots, tmp_path, how):
    official = tmp_path / "official"
    official.mkdir()
    paths = [official / f"{name}.pth" for name in ("scale", "shift")]
    for path in paths:
        torch.save({"model": {path.stem: torch.ones(1)}, "optimizer": {"state": {}, "param_groups": []}}, path)
    (official / "train.log").write_text("loss")
    given = {"toy_trained": paths if how == "files" else official}
    plan_run(roots, tmp_path / "out", f"folder={roots / 'other'}", checkpoints=given)
    assert records(tmp_path / "out") == {("toy_trained", "done")}


def test_a_folder_without_weights_or_with_an_unfinished_training_is_no_checkpoint(roots, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / checkpoints.STATE).write_bytes(b"")
    for name, words in (("empty", "no file that ends in .safetensors, .pth"), ("unfinished", "it has no card.json")):
        with pytest.raises(WeightsError, match=words):
            plan_run(roots, tmp_path / "out", "mvtec", checkpoints={"toy_trained": tmp_path / name})
    assert not (tmp_path / "out").exists()


def test_what_is_wrong_below_the_checkpoints_folder_is_a_note_and_its_cards_are_read_once(roots, tmp_path, monkeypatch):
    folder = tmp_path / "checkpoints"
    train(roots, folder / "a")
    train(roots, folder / "b", seed=1)
    (folder / "a" / checkpoints.WEIGHTS).write_bytes(b"cut")
    (folder / "torn").mkdir()
    (folder / "torn" / checkpoints.CARD).write_text("{")
    read, original = [], checkpoints.read_card
    monkeypatch.setattr(checkpoints, "read_card", lambda path: read.append(path) or original(path))
    target = f"folder={roots / 'other'}"
    plan = plan_run(
        roots, tmp_path / "out", target, methods=["toy_trained", "toy_trained.plain"], checkpoint_folder=folder
    )
    cells = {cell.planned.name: cell.planned.checkpoint for group in plan.groups for cell in group}
    assert cells["toy_trained.mvtec"] == (folder / "b" / checkpoints.WEIGHTS,)
    told = " ".join(finding.message for finding in plan.findings)
    assert "torn/card.json" in told and "a/weights.safetensors has SHA-256" in told
    assert "toy_trained.mvtec runs with weights of the training seed 1" in told
    assert read.count(folder / "torn") == 1 and read.count(folder / "b") <= 2, "once to look, once to load"


def test_images_that_a_training_has_seen_are_known_by_what_they_hold(roots, tmp_path):
    """A copy under another name is a leak, also one of a part; other images of the same name are none."""
    folder = train(roots, tmp_path / "trained")
    shutil.copytree(roots / "mvtec", tmp_path / "copy")
    mixed = write_tree(tmp_path / "mixed", categories=["bottle", "cap"], seed=2)
    shutil.copy(roots / "mvtec/bottle/train/good/000.png", mixed / "bottle/test/good/copied.png")
    given = {"checkpoints": {"toy_trained": folder}}
    for name in ("copy", "mixed"):
        plan_run(roots, tmp_path / f"out_{name}", f"folder={tmp_path / name}", **given)
    found = {record.category: record for record in results.load_run(tmp_path / "out_mixed")}
    (copied,) = results.load_run(tmp_path / "out_copy")
    assert copied.status == "refused" and "was trained on 13 of these images" in copied.error
    assert found["bottle"].status == "refused" and "was trained on 1 of these images" in found["bottle"].error
    assert found["cap"].status == "done" and found["cap"].setting["leak"] is False
    plan_run(roots, tmp_path / "out", f"folder={tmp_path / 'copy'}", allow_leak=True, **given)
    (allowed,) = results.load_run(tmp_path / "out")
    assert allowed.status == "done" and allowed.setting["leak"] is True


@pytest.mark.parametrize("given", ["folder", "file"])
def test_own_data_is_seen_by_what_it_holds_and_not_by_its_name(roots, tmp_path, given):
    lines = [write_tree(tmp_path / place / "line", categories=["bottle"], seed=3 + i) for i, place in enumerate("ab")]
    loop.train(TrainRequest("toy_trained", f"folder={lines[0]}", tmp_path / "trained"), loop.SilentTraining())
    weights = tmp_path / "trained" / (checkpoints.WEIGHTS if given == "file" else "")
    for line, status in zip(lines, ("refused", "done"), strict=True):
        out = tmp_path / f"out_{status}"
        plan_run(roots, out, f"folder={line}", checkpoints={"toy_trained": weights})
        (record,) = results.load_run(out)
        assert (record.dataset, record.status) == ("folder.line", status), record.error


def test_an_old_card_that_does_not_say_what_it_has_seen_is_judged_by_names(roots, tmp_path):
    lines = [write_tree(tmp_path / name, categories=["bottle"], seed=3 + i) for i, name in enumerate(("left", "right"))]
    loop.train(TrainRequest("toy_trained", f"folder={lines[0]}", tmp_path / "trained"), loop.SilentTraining())
    path = tmp_path / "trained" / checkpoints.CARD
    card = json.loads(path.read_text())
    del card["data"]["images"]
    path.write_text(json.dumps(card))
    for line, status in zip(lines, ("refused", "done"), strict=True):
        plan_run(roots, tmp_path / status, f"folder={line}", checkpoints={"toy_trained": tmp_path / "trained"})
        assert {one.status for one in results.load_run(tmp_path / status)} == {status}


def test_weights_of_several_datasets_have_seen_each_whichever_method_wrote_them(roots, tmp_path):
    path = tmp_path / "official.pth"
    torch.save({"scale": torch.ones(1), "shift": torch.zeros(1)}, path)
    changes = {"toy_trained": {"trained_on": "visa+mvtec"}}
    plan_run(roots, tmp_path / "out", "mvtec", checkpoints={"toy_trained": path}, changes=changes)
    assert records(tmp_path / "out") == {("toy_trained", "refused")}


def test_an_official_file_given_for_the_bare_name_is_the_default_presets_on_every_dataset(roots, tmp_path):
    path = tmp_path / "official.pth"
    torch.save({"scale": torch.ones(1), "shift": torch.zeros(1)}, path)
    plan_run(roots, tmp_path / "out", f"folder={roots / 'other'}", checkpoints={"toy_trained": path})
    (record,) = results.load_run(tmp_path / "out")
    assert (record.method, record.status, record.setting["trained_on"]) == ("toy_trained", "done", ["visa"])


def test_weights_of_other_code_are_trained_again_or_used_with_a_note(roots, tmp_path, monkeypatch):
    options = {"target": f"folder={roots / 'other'}", "checkpoint_folder": tmp_path / "checkpoints"}
    plan_run(roots, tmp_path / "first", **options)
    (old,) = (tmp_path / "checkpoints").iterdir()
    again = plan_run(roots, tmp_path / "again", **options)
    assert not again.trainings and list((tmp_path / "checkpoints").iterdir()) == [old]
    monkeypatch.setattr(source, "of_plugin", lambda plugin: "0" * 64)
    told = plan_run(roots, tmp_path / "kept", train=False, **options)
    assert f"toy_trained.mvtec runs with the weights in {old}, although the code of toy_trained has changed" in notes(
        told
    )
    assert records(tmp_path / "kept") == {("toy_trained.mvtec", "done")}
    request = Request(
        ["toy_trained"], [options["target"]], tmp_path / "new", data_root=roots, checkpoint_folder=old.parent
    )
    planned = make_plan(request)
    assert f"The weights in {old} are not used, because the code of toy_trained has changed since" in notes(planned)
    assert [one.request.out for one in planned.trainings] != [old]
    plan_run(roots, tmp_path / "new", **options)
    assert len(list(old.parent.iterdir())) == 2 and records(tmp_path / "new") == {("toy_trained.mvtec", "done")}


def test_weights_of_images_that_have_changed_are_trained_again(roots, tmp_path):
    data = Path(shutil.copytree(roots, tmp_path / "roots"))
    options = {"target": f"folder={data / 'other'}", "checkpoint_folder": tmp_path / "checkpoints"}
    plan_run(data, tmp_path / "first", **options)
    mask = next((data / "mvtec/bottle/ground_truth").rglob("*_mask.png"))
    save(mask, np.full((64, 64), 255, np.uint8))
    plan_run(data, tmp_path / "second", **options)
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2
    first, second = (results.load_run(tmp_path / name)[0].setting["checkpoint_sha256"] for name in ("first", "second"))
    assert first != second


def notes(plan) -> str:
    return "\n".join(finding.message for finding in plan.findings)
