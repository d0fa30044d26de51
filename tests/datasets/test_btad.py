"""BTAD: mixed file types, non-square images, anomalib's and Bayes-PFL's copies (docs/datasets/btad.md)."""

from __future__ import annotations

import pytest

from zsadbench import datasets
from zsadbench.errors import DataError
from zsadbench.testing import check_dataset

IMAGES = {"01": ("bmp", "png"), "02": ("png", "png"), "03": ("bmp", "bmp")}


@pytest.fixture
def official(paint, tmp_path):
    for product, (image, mask) in IMAGES.items():
        base = f"btad/BTech_Dataset_transformed/{product}"
        paint(f"{base}/train/ok/0000.{image}", 6, 8)
        paint(f"{base}/test/ok/0000.{image}", 6, 8)
        paint(f"{base}/test/ko/0001.{image}", 6, 8)
        paint(f"{base}/ground_truth/ko/0001.{mask}", 6, 8, value=255)
    (tmp_path / "btad/BTech_Dataset_transformed/01/test/ok/Thumbs.db").touch()
    return tmp_path


def test_official_tree_pairs_across_file_types(official, summary, marked_pixels):
    dataset = datasets.create("btad", official)
    assert summary(dataset) == [
        row
        for product, (image, mask) in IMAGES.items()
        for row in (
            (f"{product}/train/ok/0000.{image}", "train", 0, "", None),
            (f"{product}/test/ko/0001.{image}", "test", 1, "", f"{product}/ground_truth/ko/0001.{mask}"),
            (f"{product}/test/ok/0000.{image}", "test", 0, "", None),
        )
    ]
    assert [marked_pixels(dataset, product) for product in IMAGES] == [[1, 0]] * 3
    assert [category.noun for category in dataset.categories()] == ["metal part", "wood", "metal part"]
    check_dataset(dataset)


def test_anomalib_copy_is_all_png(official, summary):
    for path in official.rglob("*.bmp"):
        path.rename(path.with_suffix(".png"))
    assert len(summary(datasets.create("btad", official))) == 9


def test_half_converted_copy_is_refused(official, paint):
    paint("btad/BTech_Dataset_transformed/01/test/ok/0000.png")
    with pytest.raises(DataError, match=r"0000\.bmp and 0000\.png have the same name"):
        datasets.create("btad", official).categories()


def test_bayes_pfl_folders_keep_the_official_category_names(paint, tmp_path, summary):
    for name in ("metal1", "wood", "metal2"):
        paint(f"BTAD/{name}/test/good/BTAD_good_0000_000000.bmp")
        paint(f"BTAD/{name}/test/anomaly/BTAD_ko_0001_000001.bmp")
        paint(f"BTAD/{name}/ground_truth/anomaly/BTAD_ko_0001_000001.png", value=255)
    dataset = datasets.create("btad", tmp_path)
    assert [category.name for category in dataset.categories()] == ["01", "02", "03"]
    assert [row[0].split("/")[0] for row in summary(dataset)] == ["metal1"] * 2 + ["wood"] * 2 + ["metal2"] * 2
    assert {row[3] for row in summary(dataset)} == {""}
    check_dataset(dataset)


def test_card_has_the_published_counts(listed):
    card = listed("btad")
    assert tuple(map(sum, zip(*card.expected.values(), strict=True))) == (451, 290)
    assert sum(card.expected_train.values()) == 1799
