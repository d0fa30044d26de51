"""HeadCT: labels.csv with a space in its header, RGBA images, copies with folders, a list of masks that are not there
(docs/datasets/brain.md)."""

from __future__ import annotations

import json

import numpy as np
import pytest

from zsadbench import datasets
from zsadbench.data.images import decode_image
from zsadbench.errors import DataError
from zsadbench.testing import check_dataset

TABLE = "id, hemorrhage\n0,1\n1, 1\n100,0\n188,0\n"
ROWS = [
    ("head_ct/head_ct/000.png", "test", 1, "", None),
    ("head_ct/head_ct/001.png", "test", 1, "", None),
    ("head_ct/head_ct/100.png", "test", 0, "", None),
    ("head_ct/head_ct/188.png", "test", 0, "", None),
]


@pytest.fixture
def raw(paint, store, tmp_path):
    for name in ("000", "001", "100"):
        paint(f"headct/head_ct/head_ct/{name}.png", 13, 16)
    pixels = np.random.default_rng(0).integers(0, 256, (13, 16, 4), dtype=np.uint8)
    store("headct/head_ct/head_ct/188.png", pixels)
    (tmp_path / "headct/labels.csv").write_text(TABLE)
    return tmp_path


def test_labels_come_from_the_table(raw, verify):
    dataset = verify("headct", raw, ROWS)
    assert dataset.card.image_level and not dataset.card.pixel_level


def test_alpha_does_not_reach_a_method(raw):
    (sample,) = [s for s in datasets.create("headct", raw).samples("head ct") if s.image.stem == "188"]
    assert decode_image(sample.image).shape == (13, 16, 3)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (TABLE + "189,0\n", r"labels\.csv and the images do not agree on 189"),
        (TABLE.replace("188,0\n", ""), "do not agree on 188"),
        (TABLE.replace("hemorrhage", "label"), "expected the columns id"),
        (TABLE.replace("188,0", "188,2"), "expected the columns id"),
        (TABLE + "188,1\n", "lists 188 twice"),
        (TABLE + "9" * 5000 + ",1\n", "do not agree on 999"),
    ],
)
def test_table_and_images_must_agree(raw, table, words):
    (raw / "headct/labels.csv").write_text(table)
    with pytest.raises(DataError, match=words):
        datasets.create("headct", raw).categories()


@pytest.mark.parametrize("folder", ["HeadCT_anomaly_detection/brain", "HeadCT_anomaly_detection/headct"])
def test_rearranged_copies_have_the_labels_as_folders(paint, tmp_path, verify, folder):
    paint(f"{folder}/test/good/100.png")
    paint(f"{folder}/test/defect/000.png")
    (tmp_path / folder / "train/good").mkdir(parents=True)
    top = folder.partition("/")[2]
    dataset = verify(
        "headct",
        tmp_path,
        [(f"{top}/test/defect/000.png", "test", 1, "", None), (f"{top}/test/good/100.png", "test", 0, "", None)],
    )
    assert [category.name for category in dataset.categories()] == ["head ct"]


def test_masks_that_an_index_names_but_nobody_has_are_ignored(paint, tmp_path, summary):
    paint("HeadCT/head ct/test/good/HeadCT_good_100_000100.bmp")
    paint("HeadCT/head ct/test/anomaly/HeadCT_defect_000_000000.bmp")
    rows = [
        {"img_path": "HeadCT/head ct/test/good/HeadCT_good_100_000100.bmp", "mask_path": "", "anomaly": 0},
        {
            "img_path": "HeadCT/head ct/test/anomaly/HeadCT_defect_000_000000.bmp",
            "mask_path": "HeadCT/head ct/ground_truth/anomaly/HeadCT_defect_000_000000.png",
            "anomaly": 1,
        },
    ]
    (tmp_path / "meta_HeadCT.json").write_text(json.dumps({"train": {}, "test": {"head ct": rows}}))
    dataset = datasets.create(f"headct={tmp_path / 'meta_HeadCT.json'}")
    assert [row[1:] for row in summary(dataset)] == [("test", 1, "", None), ("test", 0, "", None)]
    check_dataset(dataset)
