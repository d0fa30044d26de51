"""What adapters share: index files in place of folders, names of categories, folders below the data root."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from zsadbench import datasets
from zsadbench.data.adapters import labelled_by_mask
from zsadbench.datasets import Sample
from zsadbench.errors import DataError


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def row(image, mask="", anomaly=0, **more):
    return {"img_path": image, "mask_path": mask, "specie_name": "", "anomaly": anomaly, **more}


def write_meta(path, category, rows, train=()):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"train": {category: list(train)}, "test": {category: rows}}))
    return path


def ids(dataset, category, split="test"):
    return [dataset.sample_id(sample) for sample in dataset.samples(category, split)]


def test_index_file_beside_the_images(tmp_path):
    touch(tmp_path, "BTAD/metal2/test/good/a.bmp", "BTAD/metal2/test/anomaly/b.bmp", "BTAD/metal2/m/b.png")
    rows = [row("BTAD/metal2/test/good/a.bmp"), row("BTAD/metal2/test/anomaly/b.bmp", "BTAD/metal2/m/b.png", 1)]
    dataset = datasets.create(f"btad={write_meta(tmp_path / 'meta_BTAD.json', 'metal2', rows)}")
    assert dataset.name == "btad" and dataset.root == tmp_path
    assert ids(dataset, "03") == ["BTAD/metal2/test/anomaly/b.bmp", "BTAD/metal2/test/good/a.bmp"]


def test_index_file_elsewhere_starts_at_the_datasets_folder_below_the_data_root(tmp_path):
    touch(tmp_path, "data/MVTec/bottle/test/good/000.png")
    index = tmp_path / "metadata/MVTec/full-shot.jsonl"
    index.parent.mkdir(parents=True)
    values = {"image_path": "bottle/test/good/000.png", "label": 0.0, "class_name": "bottle"}
    index.write_text(json.dumps(values) + "\n")
    dataset = datasets.create(f"mvtec={index}", tmp_path / "data")
    assert dataset.root == tmp_path / "data/MVTec"
    assert ids(dataset, "bottle") == ["bottle/test/good/000.png"]
    with pytest.raises(DataError, match=r"line 1: image bottle/test/good/000\.png does not exist below"):
        datasets.create(f"mvtec={index}")


def test_only_category_of_a_card_replaces_whatever_the_index_calls_it(tmp_path):
    touch(tmp_path, "images/1.png", "masks/1.png")
    meta = write_meta(tmp_path / "meta.json", "polyp", [row("images/1.png", "masks/1.png", 1)])
    assert [category.name for category in datasets.create(f"colondb={meta}").categories()] == ["colon"]


def test_anomalous_train_images_of_an_index_are_left_out(tmp_path):
    touch(tmp_path, "a.png", "b.png", "c.png")
    meta = write_meta(tmp_path / "meta.json", "x", [row("a.png")], train=[row("b.png"), row("c.png", "", 1)])
    dataset = datasets.create(f"ksdd2={meta}")
    assert ids(dataset, "ksdd2", "train") == ["b.png"]


def test_masks_of_an_index_are_dropped_where_the_card_has_none(tmp_path):
    touch(tmp_path, "a.png", "m.png")
    meta = write_meta(tmp_path / "meta.json", "brain", [row("a.png", "m.png", 1)])
    (sample,) = datasets.create(f"headct={meta}").samples("head ct")
    assert sample.mask is None


def test_folder_that_is_not_understood_points_at_its_index_file(tmp_path):
    touch(tmp_path, "SDD/pictures/1.png", "SDD/meta.json")
    with pytest.raises(DataError, match=r"To read the index file there, use --datasets ksdd\.anomalyclip=.*meta\.json"):
        datasets.create("ksdd.anomalyclip", tmp_path)


@pytest.mark.parametrize(
    ("name", "folders"),
    [
        ("ksdd", ["ksdd", "KolektorSDD", "KSDD"]),
        ("ksdd.adaclip", ["ksdd.adaclip", "SDD_anomaly_detection", "ksdd"]),
    ],
)
def test_folders_that_were_tried_are_listed(tmp_path, name, folders):
    with pytest.raises(DataError, match=f"tried {', '.join(folders)}\\."):
        datasets.create(name, tmp_path)


@pytest.mark.parametrize(("value", "label"), [(0, 0), (1, 1), (255, 1)])
def test_mask_tells_the_label_at_full_size(tmp_path, value, label):
    pixels = np.zeros((400, 300), np.uint8)
    pixels[399, 299] = value
    Image.fromarray(pixels).save(tmp_path / "m.png")
    sample = labelled_by_mask(tmp_path / "a.png", tmp_path / "m.png", "x", "gt0")
    assert (sample.label, bool(sample.masks)) == (label, bool(label))


def test_part_of_an_image_has_a_path_of_its_own_and_cuts_pixels(tmp_path):
    whole = Sample(tmp_path / "a.jpg", None, 0, "x")
    part = Sample(tmp_path / "a.jpg", None, 0, "x", crop=(1, 0, 3, 2))
    assert whole.path == whole.image and part.path == tmp_path / "a.jpg#1-0-3-2"
    pixels = np.arange(24).reshape(4, 3, 2)
    assert np.array_equal(part.cut(pixels), pixels[1:3, 0:2])
    assert whole.cut(pixels) is pixels
