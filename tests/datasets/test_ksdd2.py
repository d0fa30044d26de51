"""KolektorSDD2: flat folders where the mask alone tells the label, and copied files (docs/datasets/kolektor.md)."""

from __future__ import annotations

import numpy as np
import pytest

from zsadbench import datasets
from zsadbench.errors import DataError


@pytest.fixture
def official(paint, store, blob, tmp_path):
    paint("ksdd2/train/10000.png", 12, 8)
    store("ksdd2/train/10000_GT.png", np.zeros((12, 8), np.uint8))
    for name in ("10301", "10301_GT"):
        pixels = blob(12, 8) if name.endswith("_GT") else np.full((12, 8, 3), 77, np.uint8)
        store(f"ksdd2/train/{name}.png", pixels)
        store(f"ksdd2/train/{name} (copy).png", pixels)
    paint("ksdd2/test/20000.png", 12, 8)
    store("ksdd2/test/20000_GT.png", np.zeros((12, 8), np.uint8))
    paint("ksdd2/test/20001.png", 15, 7)
    store("ksdd2/test/20001_GT.png", blob(15, 7))
    (tmp_path / "ksdd2/split_weakly_0.pyb").touch()
    return tmp_path


def test_labels_come_from_the_masks_and_copies_are_ignored(official, verify, marked_pixels):
    dataset = verify(
        "ksdd2",
        official,
        [
            ("train/10000.png", "train", 0, "", None),
            ("test/20000.png", "test", 0, "", None),
            ("test/20001.png", "test", 1, "", "test/20001_GT.png"),
        ],
    )
    assert marked_pixels(dataset, "ksdd2") == [0, 9]


def test_one_faint_pixel_makes_an_image_anomalous(official, store):
    mask = np.zeros((12, 8), np.uint8)
    mask[3, 3] = 1
    store("ksdd2/test/20000_GT.png", mask)
    assert [sample.label for sample in datasets.create("ksdd2", official).samples("ksdd2")] == [1, 1]


def test_image_without_mask_is_refused_because_its_label_is_unknown(official):
    (official / "ksdd2/test/20000_GT.png").unlink()
    with pytest.raises(DataError, match=r"20000\.png has no mask"):
        datasets.create("ksdd2", official).categories()


def test_unreadable_mask_is_refused_because_the_label_is_unknown(official):
    (official / "ksdd2/test/20000_GT.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"20000_GT\.png is not an image: it is empty"):
        datasets.create("ksdd2", official).categories()


def test_dataset_ninja_copy_is_refused_with_a_hint(paint, tmp_path):
    paint("ksdd2/test/img/20000.png")
    (tmp_path / "ksdd2/test/ann").mkdir()
    with pytest.raises(DataError, match=r"Dataset Ninja's copy.*KolektorSDD2\.zip"):
        datasets.create("ksdd2", tmp_path)


def test_bayes_pfl_crops_are_another_dataset(paint, tmp_path, verify):
    paint("KSDD2/Metal/test/good/a_000001.bmp")
    paint("KSDD2/Metal/test/anomaly/b_000000.bmp")
    paint("KSDD2/Metal/ground_truth/anomaly/b_000000.png", value=255)
    verify(
        "ksdd2.bayespfl",
        tmp_path,
        [
            ("Metal/test/anomaly/b_000000.bmp", "test", 1, "", "Metal/ground_truth/anomaly/b_000000.png"),
            ("Metal/test/good/a_000001.bmp", "test", 0, "", None),
        ],
    )


def test_cards_keep_ksdd_and_ksdd2_apart(listed):
    for name in ("ksdd", "ksdd2", "ksdd2.bayespfl"):
        assert "Dual-Anchor" in listed(name).notes, name
    for name in ("ksdd.strips3", "ksdd.adaclip", "ksdd.anomalyclip"):
        assert "Not KSDD2" in listed(name).notes, name
