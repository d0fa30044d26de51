"""What names alone tell about a dataset: which folders are normal, which files are left out. No image is opened."""

from __future__ import annotations

import json

import numpy as np
import pytest
from commands import zsadbench
from PIL import Image
from toy_tree import write_tree

from zsadbench import datasets, evaluate
from zsadbench.data import findings, index_files, labels
from zsadbench.errors import DataError


@pytest.fixture
def part(tmp_path):
    """A function (*names) that makes the dataset folder=PART of empty files; `options` stand after the name."""

    def make(*names, options=""):
        for name in names:
            (tmp_path / "part" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "part" / name).touch()
        return datasets.create(f"folder{options}={tmp_path / 'part'}")

    return make


def told(dataset, categories=()):
    return {finding.kind: finding for finding in findings.of_names(dataset, categories)}


@pytest.mark.parametrize(
    ("normal", "anomalous"),
    [
        ("good", "bad"),
        ("Good", "Bad"),
        ("OK", "NG"),
        ("normal", "abnormal"),
        ("no_defect", "defect"),
        ("Defect-Free", "scratch"),
        ("pass", "fail"),
    ],
)
def test_names_that_mean_normal_are_read_so_in_any_case_at_test_and_train(part, tmp_path, normal, anomalous):
    dataset = part(
        f"test/{normal}/0.png", f"test/{anomalous}/0.png", f"train/{normal}/0.png", f"train/{anomalous}/0.png"
    )
    assert findings.test_counts(dataset, "part") == (1, 1)
    assert [sample.label for sample in dataset.samples("part", "train")] == [0]
    rows = f"image,label\ntest/{normal}/0.png,{normal}\ntest/{anomalous}/0.png,1\n"
    (tmp_path / "part/index.csv").write_text(rows)
    assert [row.label for row in index_files.read_index(tmp_path / "part/index.csv").rows] == [0, 1]


@pytest.mark.parametrize(("normal", "anomalous"), [("0", "1"), ("no", "yes"), ("negative", "positive")])
def test_names_that_may_mean_anything_are_a_problem_that_names_them_and_an_option_settles_it(part, normal, anomalous):
    names = f"test/{normal}/0.png", f"test/{anomalous}/0.png", f"train/{normal}/0.png"
    dataset = part(*names)
    problem = told(dataset)["no normal images"]
    taken = ", ".join(sorted((normal, anomalous)))
    assert problem.wrong and f"taken for kinds of defects: {taken}." in problem.message
    assert f"folder.normal-NAME.part={dataset.folder}" in problem.message
    settled = part(*names, options=f".normal-{normal}")
    assert settled.name == f"folder.normal-{normal}.part" and findings.test_counts(settled, "part") == (1, 1)
    assert len(settled.samples("part", "train")) == 1 and told(settled) == {}


def test_options_have_one_order_so_that_one_name_stands_for_one_choice(part):
    names = "test/no/0.png", "test/hole/0.png", "test/clean/0.png"
    dataset = part(*names, options=".normal-no.normal-clean.gt0")
    assert dataset.name == "folder.gt0.normal-clean.normal-no.part" and dataset.card.mask_rule == "gt0"
    assert findings.test_counts(dataset, "part") == (2, 1)


def test_a_record_name_in_place_of_a_path_is_told_what_to_write():
    with pytest.raises(DataError, match=r"dataset folder\.part: got no path; expected folder\.part=PATH"):
        datasets.create("folder.part")


def test_every_category_is_looked_at_and_only_those_of_the_run(part):
    dataset = part("a/test/good/0.png", "a/test/hole/0.png", "b/test/zero/0.png", "c/test/good/0.png")
    problem, note = findings.of_names(dataset)
    assert problem.wrong and "folder.part, b: not one of 1 test images" in problem.message
    assert not note.wrong and "folder.part, c: all 1 test images are normal, none is anomalous" in note.message
    assert findings.of_names(dataset, ["a"]) == []


def test_an_index_of_one_label_is_a_note(part, tmp_path):
    part("test/good/0.png", "test/hole/0.png")
    (tmp_path / "part/list.csv").write_text("image,label\ntest/good/0.png,1\ntest/hole/0.png,1\n")
    finding = told(datasets.create(f"folder={tmp_path / 'part/list.csv'}"))["one label"]
    assert not finding.wrong and "all 2 test images are anomalous, none is normal" in finding.message


def test_sets_that_are_known_to_have_one_label_are_not_scolded(tmp_path):
    for name in ("images/1.png", "masks/1.png"):
        (tmp_path / "kvasir" / name).parent.mkdir(parents=True)
        (tmp_path / "kvasir" / name).touch()
    assert findings.of_names(datasets.create("kvasir", tmp_path)) == []


def test_normal_images_without_masks_beside_masks_are_told_which_folder_is_in_doubt(part):
    with pytest.raises(DataError, match=r"test/0 was taken for a kind of defect, .*use folder\.normal-0=.*part\."):
        part("test/0/0.png", "test/1/0.png", "ground_truth/1/0.png")


def test_files_that_are_not_read_are_counted_by_what_would_mend_them(part):
    dataset = part(
        "test/good/0.png",
        "test/hole/0.png",
        "test/hole/day2/1.png",
        "test/good/a.jfif",
        "test/good/1 (copy).png",
        "test/good/notes.txt",
        "test/good/.hidden.png",
        "masks/hole/0.png",
    )
    assert [path.relative_to(dataset.root).as_posix() for path in findings.unread_files(dataset)] == [
        "masks/hole/0.png",
        "test/good/1 (copy).png",
        "test/good/a.jfif",
        "test/hole/day2/1.png",
    ]
    note = told(dataset)["files that are not read"]
    assert not note.wrong and "4 files are not read: 2 images in folders where none is expected" in note.message
    assert "2 files of another type" in note.message


def test_masks_of_normal_images_and_complete_trees_are_nothing_to_tell(mvtec_tree, part):
    assert findings.of_names(datasets.create("mvtec", mvtec_tree)) == []
    dataset = part("test/good/0.png", "test/hole/0.png", "ground_truth/hole/0.png", "ground_truth/good/0.png")
    assert findings.of_names(dataset) == []


def test_folders_deeper_than_the_layout_of_a_known_set_are_told_too(tmp_path):
    root = write_tree(tmp_path / "mvtec", categories=["grid"], good=1, bad=1)
    (root / "grid/test/good/day2").mkdir()
    (root / "grid/test/good/000.png").rename(root / "grid/test/good/day2/000.png")
    note = told(datasets.create("mvtec", tmp_path))["files that are not read"]
    assert "1 file below grid/test/good/day2/ is not read" in note.message


def test_images_that_all_lie_too_deep_are_named(part):
    with pytest.raises(DataError, match=r"folder\.part=.*part: no images where .* first image is test/good/rgb/0\.png"):
        part("test/good/rgb/0.png", "test/hole/rgb/0.png")


def test_no_word_means_both():
    assert not labels.NORMAL & labels.UNNAMED and not index_files.NORMAL & index_files.ANOMALOUS


@pytest.fixture
def zero_and_one(tmp_path):
    for i in range(4):
        path = tmp_path / "part/test" / str(i % 2) / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), 60 + i, np.uint8)).save(path)
    return tmp_path / "part"


def test_check_ends_with_1_and_run_says_the_problem_first_and_last(zero_and_one, tmp_path, toy_plugins):
    done = zsadbench("data", "check", f"folder={zero_and_one}")
    assert done.returncode == 1 and "taken for kinds of defects: 0, 1" in done.stdout
    report = json.loads(zsadbench("data", "check", f"folder={zero_and_one}", "--json").stdout)
    assert [(found["kind"], found["wrong"]) for found in report["findings"]] == [("no normal images", True)]
    arguments = ("--plugins", toy_plugins, "--methods", "good_mean", "--datasets", f"folder={zero_and_one}")
    lines = zsadbench("run", *arguments, "--out", tmp_path / "out", "-q").stderr.splitlines()
    assert lines[0] == lines[-1] and lines[0].startswith("PROBLEM: folder.part, part: not one of 4 test images")
    with pytest.warns(UserWarning, match="not one of 4 test images"):
        evaluate("good_mean", f"folder={zero_and_one}", out=tmp_path / "out", plugins=[toy_plugins])


def test_index_whose_category_merges_official_ones_is_told(tmp_path):
    root = write_tree(tmp_path / "DTD", categories=["Woven_001", "woven1", "Mesh_114"], good=1, bad=1)
    rows = {
        "woven": [("Woven_001/test/good/000.png", 0), ("woven1/test/good/000.png", 0)],
        "Mesh_114": [("Mesh_114/test/good/000.png", 0)],
    }
    content = {
        split: {
            name: [{"img_path": path, "mask_path": "", "cls_name": name, "anomaly": label} for path, label in group]
            for name, group in (rows if split == "test" else {}).items()
        }
        for split in ("train", "test")
    }
    (root / "meta.json").write_text(json.dumps(content))
    note = told(datasets.create(f"dtd_synthetic={root / 'meta.json'}"))["merged categories"]
    assert "the category woven merges 2 official ones, Woven_001, Woven_127" in note.message and not note.wrong


@pytest.mark.parametrize("name", ["folder", "mvtec"])
def test_a_layout_that_cannot_be_read_gives_one_report_whichever_name_was_asked(tmp_path, name):
    write_tree(tmp_path / "mvtec", categories=["grid"], good=1, bad=1)
    (tmp_path / "mvtec/grid/ground_truth/hole/000_mask.png").unlink()
    done = zsadbench("data", "check", f"{name}={tmp_path / 'mvtec'}", "--json")
    report = json.loads(done.stdout)
    assert done.returncode == 1 and not report["ok"] and report["dataset"] == name
    assert [found["kind"] for found in report["findings"]] == ["layout"] and report["root"] == str(tmp_path / "mvtec")
    assert zsadbench("data", "check", f"{name}={tmp_path / 'gone'}", "--json").returncode == 2


@pytest.mark.parametrize(("given", "meant"), [("", "data"), ("data/kos01", "data"), ("..", "set/data")])
def test_a_data_set_one_level_off_is_asked_for(tmp_path, given, meant):
    (tmp_path / "set/data/kos01").mkdir(parents=True)
    folder = tmp_path / "set" / given
    meant = tmp_path / "set" / meant if given != ".." else tmp_path / meant
    with pytest.raises(DataError, match=f"Did you mean .*{meant.relative_to(tmp_path)}\\?"):
        datasets.create(f"ksdd={folder}")


def test_a_data_root_one_level_off_is_asked_for(tmp_path):
    (tmp_path / "real/mvtec").mkdir(parents=True)
    with pytest.raises(DataError, match=f"Did you mean mvtec={tmp_path / 'real/mvtec'}"):
        datasets.create("mvtec", tmp_path)
    with pytest.raises(DataError, match=f"Did you mean --data-root {tmp_path / 'real'}"):
        datasets.create("mvtec", tmp_path / "real/mvtec")
