"""KolektorSDD: whole images, strips of them, and rearranged copies (docs/datasets/kolektor.md)."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from zsadbench import datasets
from zsadbench.data.check import check
from zsadbench.testing import check_dataset

HEIGHT, WIDTH = 32, 10  # strips of 10, 11 and 11 rows, as 1270 rows give 423, 423 and 424


@pytest.fixture
def official(paint, store, tmp_path):
    def add(name, rows=slice(0)):
        paint(f"ksdd/{name}.jpg", HEIGHT, WIDTH)
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        mask[rows, 2:5] = 255
        store(f"ksdd/{name}_label.bmp", mask)

    add("kos01/Part0")
    add("kos01/Part5", slice(8, 12))  # crosses the line between the first and the second strip
    add("kos02/Part0", slice(31, 32))
    (tmp_path / "ksdd/kos02/Thumbs.db").touch()
    (tmp_path / "ksdd/splits").mkdir()
    return tmp_path


def test_whole_images_are_labelled_by_the_pixels_of_their_label_file(official, verify, marked_pixels):
    dataset = verify(
        "ksdd",
        official,
        [
            ("kos01/Part0.jpg", "test", 0, "", None),
            ("kos01/Part5.jpg", "test", 1, "", "kos01/Part5_label.bmp"),
            ("kos02/Part0.jpg", "test", 1, "", "kos02/Part0_label.bmp"),
        ],
    )
    assert marked_pixels(dataset, "ksdd") == [0, 12, 3]
    assert [category.noun for category in dataset.categories()] == ["electrical commutator"]


def test_strips_are_samples_of_their_own(official, verify, marked_pixels):
    part5, last = "kos01/Part5_label.bmp", "kos02/Part0_label.bmp"
    dataset = verify(
        "ksdd.strips3",
        official,
        [
            ("kos01/Part0.jpg#0-0-10-10", "test", 0, "", None),
            ("kos01/Part0.jpg#10-0-21-10", "test", 0, "", None),
            ("kos01/Part0.jpg#21-0-32-10", "test", 0, "", None),
            ("kos01/Part5.jpg#0-0-10-10", "test", 1, "", part5),
            ("kos01/Part5.jpg#10-0-21-10", "test", 1, "", part5),
            ("kos01/Part5.jpg#21-0-32-10", "test", 0, "", None),
            ("kos02/Part0.jpg#0-0-10-10", "test", 0, "", None),
            ("kos02/Part0.jpg#10-0-21-10", "test", 0, "", None),
            ("kos02/Part0.jpg#21-0-32-10", "test", 1, "", last),
        ],
    )
    assert marked_pixels(dataset, "ksdd") == [0, 0, 0, 6, 6, 0, 0, 0, 3]


def test_strips_of_one_image_are_no_duplicates_but_copies_are(official):
    (official / "ksdd/kos02/Part1.jpg").write_bytes((official / "ksdd/kos01/Part0.jpg").read_bytes())
    (official / "ksdd/kos02/Part1_label.bmp").write_bytes((official / "ksdd/kos01/Part0_label.bmp").read_bytes())
    kinds = [finding.kind for finding in check(datasets.create("ksdd.strips3", official)).findings]
    assert kinds == ["identical images"] * 3


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("ksdd.adaclip", "SDD_anomaly_detection/SDD"),
        ("ksdd.anomalyclip", "SDD/electrical commutators"),
        ("ksdd.anomalyclip", "SDD/electrical_commutators"),
    ],
)
def test_rearranged_copies(paint, tmp_path, verify, name, folder):
    for path in ("train/good/kos01_Part0_1.png", "test/good/kos01_Part0_0.png", "test/defect/kos01_Part5_0.png"):
        paint(f"{folder}/{path}")
    paint(f"{folder}/ground_truth/defect/kos01_Part5_0_mask.png", value=255)
    top = folder.partition("/")[2]
    dataset = verify(
        name,
        tmp_path,
        [
            (f"{top}/train/good/kos01_Part0_1.png", "train", 0, "", None),
            (
                f"{top}/test/defect/kos01_Part5_0.png",
                "test",
                1,
                "",
                f"{top}/ground_truth/defect/kos01_Part5_0_mask.png",
            ),
            (f"{top}/test/good/kos01_Part0_0.png", "test", 0, "", None),
        ],
    )
    assert [category.name for category in dataset.categories()] == ["SDD"]


@pytest.mark.parametrize("eval_size", ["native", "input"])
def test_methods_see_a_strip_as_if_it_were_a_file(official, store, run_method, eval_size):
    """AdaCLIP's script, written out: cut the decoded image and its label into files of their own."""
    for name in ("kos01_Part0", "kos01_Part5", "kos02_Part0"):
        source = official / "ksdd" / name.replace("_", "/")
        image = np.asarray(Image.open(source.with_suffix(".jpg")))
        mask = np.asarray(Image.open(source.with_name(f"{source.name}_label.bmp")))
        for i, rows in enumerate((slice(0, 10), slice(10, 21), slice(21, 32))):
            kind = "defect" if mask[rows].max() > 0 else "good"
            store(f"SDD_anomaly_detection/SDD/test/{kind}/{name}_{i}.png", image[rows])
            if kind == "defect":
                store(f"SDD_anomaly_detection/SDD/ground_truth/defect/{name}_{i}_mask.png", mask[rows])
    (strips,) = run_method("good_mean", "ksdd.strips3", official, eval_size=eval_size)
    (files,) = run_method("good_mean", "ksdd.adaclip", official, eval_size=eval_size)
    assert strips.record.image == files.record.image
    assert strips.record.pixel == pytest.approx(files.record.pixel, abs=1e-12)
    assert sorted(strips.scores) == sorted(files.scores) and len(set(strips.scores)) == 9
    check_dataset(datasets.create("ksdd.adaclip", official))
