"""The JSONL of `data index`: what it says, that it reads back, and where it is never written."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from zsadbench import datasets
from zsadbench.data import index_writer
from zsadbench.data.check import check
from zsadbench.errors import UsageError
from zsadbench.testing import check_dataset


@pytest.fixture
def mvtec(mvtec_tree):
    return datasets.create("mvtec", mvtec_tree)


def test_rows_name_every_sample_and_the_hash_that_runs_use(mvtec):
    rows = list(index_writer.rows(mvtec))
    assert len(rows) == 2 * (13 + 3)
    row = next(row for row in rows if row["id"] == "grid/test/crack/001.png")
    assert row == {
        "id": "grid/test/crack/001.png",
        "image": "grid/test/crack/001.png",
        "mask": "grid/ground_truth/crack/001_mask.png",
        "label": 1,
        "category": "grid",
        "defect": "crack",
        "split": "test",
        "mask_rule": "gt127",
        "samples_sha256": mvtec.samples_sha256(mvtec.samples("grid")),
    }
    normal = next(row for row in rows if row["label"] == 0)
    assert normal["mask"] is None and normal["defect"] == ""


def test_two_copies_of_a_dataset_give_the_same_file(mvtec, tmp_path):
    copy = tmp_path / "elsewhere"
    copy.symlink_to(mvtec.root)
    index_writer.write(mvtec, tmp_path / "a.jsonl")
    index_writer.write(datasets.create(f"mvtec={copy}"), tmp_path / "b.jsonl")
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()


def test_index_reads_back_as_a_dataset_with_the_same_samples(mvtec, tmp_path):
    assert index_writer.write(mvtec, tmp_path / "index.jsonl") == 32
    again = datasets.create(f"folder={tmp_path / 'index.jsonl'}", mvtec.root)
    check_dataset(again)
    for category in ("bottle", "grid"):
        for split in ("test", "train"):
            assert again.samples(category, split) == mvtec.samples(category, split)


def loco(root):
    """MVTec LOCO: one image with two masks, whose values tell the kind of defect."""
    for name, value in (("test/good/0", 9), ("test/logical_anomalies/0", 9), ("train/good/0", 8)):
        path = root / "pushpins" / f"{name}.png"
        path.parent.mkdir(parents=True)
        Image.new("RGB", (4, 4), (value, len(name), 0)).save(path)
    masks = root / "pushpins/ground_truth/logical_anomalies/0"
    masks.mkdir(parents=True)
    for i in range(2):
        mask = Image.new("L", (4, 4))
        mask.putpixel((i, 0), 100 + i)
        mask.save(masks / f"{i:03}.png")
    return "mvtec_loco"


def strips(root):
    """KSDD in strips: one image, of which only the second strip is defective."""
    (root / "kos01").mkdir()
    Image.new("L", (6, 9), 7).save(root / "kos01/Part0.jpg")
    mask = Image.new("L", (6, 9))
    mask.putpixel((2, 4), 1)
    mask.save(root / "kos01/Part0_label.bmp")
    return "ksdd.strips3"


@pytest.mark.parametrize("make", [loco, strips])
def test_index_of_masks_to_unite_and_of_parts_reads_back_the_same_pixels(tmp_path, make):
    (tmp_path / "set").mkdir()
    original = datasets.create(f"{make(tmp_path / 'set')}={tmp_path / 'set'}")
    index_writer.write(original, tmp_path / "index.jsonl")
    again = datasets.create(f"folder={tmp_path / 'index.jsonl'}", original.root)
    check_dataset(again)
    (category,) = original.categories()
    for split in ("test", "train"):
        assert again.samples(category.name, split) == original.samples(category.name, split)
    assert again.card.mask_rule == "gt0"
    report = check(again)
    assert report.ok and report.counts[0].test == (2 if make is strips else 1, 1)


def test_parts_of_images_and_several_masks_are_told(tmp_path):
    for name in ("kos01/Part0.jpg", "kos01/Part0_label.bmp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (6, 9)).save(tmp_path / name)
    rows = list(index_writer.rows(datasets.create(f"ksdd.strips3={tmp_path}")))
    assert [row["crop"] for row in rows] == [(0, 0, 3, 6), (3, 0, 6, 6), (6, 0, 9, 6)]
    assert {row["image"] for row in rows} == {"kos01/Part0.jpg"} and len({row["id"] for row in rows}) == 3
    loco = tmp_path / "loco/juice_bottle"
    names = ["test/good/0.png", "test/logical_anomalies/0.png"]
    names += [f"ground_truth/logical_anomalies/0/00{i}.png" for i in range(2)]
    for name in names:
        (loco / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (6, 9)).save(loco / name)
    masks = [row["mask"] for row in index_writer.rows(datasets.create(f"mvtec_loco={loco.parent}"))]
    prefix = "juice_bottle/ground_truth/logical_anomalies/0"
    assert masks == [None, [f"{prefix}/000.png", f"{prefix}/001.png"]]


@pytest.mark.parametrize("inside", ["index.jsonl", "grid/test/index.jsonl", "new/index.jsonl", "../link/index.jsonl"])
def test_nothing_is_written_into_the_users_data(mvtec, tmp_path, inside):
    (tmp_path / "link").symlink_to(mvtec.root)
    out = tmp_path / inside[3:] if inside.startswith("../") else mvtec.root / inside
    before = sorted(mvtec.root.rglob("*"))
    with pytest.raises(UsageError, match="own folder"):
        index_writer.write(mvtec, out)
    assert sorted(mvtec.root.rglob("*")) == before


def test_folder_around_a_nested_layout_is_the_users_too(tmp_path):
    good = tmp_path / "mvtec/mvtec_anomaly_detection/grid/test/good"
    good.mkdir(parents=True)
    Image.new("L", (4, 4)).save(good / "0.png")
    nested = datasets.create("mvtec", tmp_path)
    with pytest.raises(UsageError, match="own folder"):
        index_writer.write(nested, tmp_path / "mvtec/index.jsonl")
    assert index_writer.write(nested, tmp_path / "index.jsonl") == 1


def test_existing_file_is_not_overwritten(mvtec, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="already exists"):
        index_writer.write(mvtec, tmp_path / "mine.txt")
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_every_line_is_one_json_object_even_with_strange_names(tmp_path):
    good = tmp_path / "tiles/test/good"
    good.mkdir(parents=True)
    for name in ("new\nline.png", 'quote".png', "ümlaut.png", "\u2028.png"):
        Image.new("L", (4, 4)).save(good / name)
    index_writer.write(datasets.create(f"folder={tmp_path / 'tiles'}"), tmp_path / "index.jsonl")
    lines = (tmp_path / "index.jsonl").read_text().split("\n")
    assert {json.loads(line)["id"] for line in lines[:-1]} == {f"test/good/{path.name}" for path in good.iterdir()}
