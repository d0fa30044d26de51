"""ISIC, ColonDB, ClinicDB, Kvasir, Endo and TN3K: anomalous images only, with masks (docs/datasets/polyps.md)."""

from __future__ import annotations

import json

import pytest

from zsadbench import datasets
from zsadbench.data.check import check
from zsadbench.errors import DataError
from zsadbench.testing import check_dataset

LAYOUTS = {  # dataset: its layouts, each as (folder, images, masks, suffix of images, what masks' names add)
    "isic": [
        ("isic", "ISBI2016_ISIC_Part1_Test_Data", "ISBI2016_ISIC_Part1_Test_GroundTruth", ".jpg", "_Segmentation.png"),
        ("ISBI/skin", "test/lesion", "ISBI2016_ISIC_Part1_Test_GroundTruth", ".jpg", "_Segmentation.png"),
        ("ISIC/isic", "test/defect", "ground_truth/defect", ".jpg", "_Segmentation.png"),
    ],
    "colondb": [
        ("CVC-ColonDB", "images", "masks", ".png", ".png"),
        ("colondb/TestDataset/CVC-ColonDB", "images", "masks", ".png", ".png"),
        ("CVC-ColonDB/ColonDB", "test/defect", "ground_truth/defect", ".png", ".png"),
    ],
    "clinicdb": [
        ("clinicdb", "Original", "Ground Truth", ".tif", ".tif"),
        ("CVC-ClinicDB/PNG", "Original", "Ground Truth", ".png", ".png"),
        ("CVC-ClinicDB", "images", "masks", ".png", ".png"),
        ("CVC-ClinicDB/ClinicDB", "test/defect", "ground_truth/defect", ".tif", ".tif"),
    ],
    "kvasir": [("Kvasir-SEG", "images", "masks", ".jpg", ".png"), ("Kvasir", "images", "masks", ".png", ".png")],
    "endo": [
        ("EndoTect_2020_Segmentation_Test_Dataset", "images", "masks", ".jpg", ".png"),
        ("EndoTect/endo", "test/defect", "ground_truth/defect", ".jpg", ".png"),
    ],
    "tn3k": [
        ("tn3k", "test-image", "test-mask", ".jpg", ".png"),
        ("Thyroid Dataset/tn3k", "test-image", "test-mask", ".jpg", ".png"),
        ("TN3K/tn3k", "test/defect", "ground_truth/defect", ".jpg", ".png"),
    ],
}
CASES = [(name, *layout) for name, layouts in LAYOUTS.items() for layout in layouts]


@pytest.mark.parametrize(("name", "folder", "images", "masks", "suffix", "mask_suffix"), CASES)
def test_each_layout_pairs_unpadded_names_by_stem(
    paint, tmp_path, verify, marked_pixels, name, folder, images, masks, suffix, mask_suffix
):
    for stem in ("1", "10"):  # "10.png" sorts after "1.png", but "10_mask.png" before "1_mask.png"
        paint(f"{folder}/{images}/{stem}{suffix}", 6, 9)
        paint(f"{folder}/{masks}/{stem}{mask_suffix}", 6, 9, value=255)
    for stray in ("README.txt", "metadata.csv", "label4test.csv", f"{images}/Thumbs.db", f"{masks}/license.txt"):
        (tmp_path / folder / stray).touch()
    (tmp_path / folder / "bboxes").mkdir()
    (tmp_path / folder / "bboxes" / "1.csv").touch()
    paint(f"{folder}/bboxes/1.png")
    rows = [
        (f"{images}/{stem}{suffix}", "test", 1, "", f"{masks}/{stem}{mask_suffix}")
        for stem in sorted(("1", "10"), key=lambda stem: f"{stem}{suffix}")
    ]
    dataset = verify(name, tmp_path, rows)
    assert not dataset.card.image_level, "there are no normal images"
    (category,) = dataset.categories()
    assert marked_pixels(dataset, category.name) == [1, 1]


@pytest.mark.parametrize(
    ("name", "image", "mask"),
    [
        ("kvasir", "Kvasir-SEG/images/cju0.jpg", "Kvasir-SEG/masks/cju0.jpg"),
        ("tn3k", "tn3k/test-image/0000.jpg", "tn3k/test-mask/0000.jpg"),
    ],
)
def test_noise_of_jpeg_masks_does_not_count_but_is_told(paint, store, blob, tmp_path, marked_pixels, name, image, mask):
    paint(image, 16, 16)
    noisy = store(mask, blob(16, 16), quality=75)
    dataset = datasets.create(name, tmp_path)
    (category,) = dataset.categories()
    assert marked_pixels(dataset, category.name) == [9]
    notes = {finding.kind: finding.message for finding in check(dataset).findings if not finding.wrong}
    assert str(noisy) in notes["unexpected mask values"]


def test_masks_in_rgb_are_read_by_their_brightest_channel(paint, store, blob, tmp_path, marked_pixels):
    paint("kvasir/images/cju0.jpg", 16, 16)
    store("kvasir/masks/cju0.jpg", blob(16, 16)[:, :, None].repeat(3, axis=2), quality=95)
    assert marked_pixels(datasets.create("kvasir", tmp_path), "colon") == [9]


def test_folder_of_boxes_is_no_folder_of_images(paint, tmp_path):
    paint("endo/bboxes/u1.jpg")
    paint("endo/masks/u1.png", value=255)
    with pytest.raises(DataError, match="expected layout: images and masks, or test and ground_truth"):
        datasets.create("endo", tmp_path)


def test_part_of_clinicdb_is_not_taken_for_the_whole(paint, tmp_path):
    paint("clinicdb/images/1.png")
    paint("clinicdb/masks/1.png", value=255)
    report = check(datasets.create("clinicdb", tmp_path))
    assert not report.ok
    assert [(count.category, count.test, count.expected_test) for count in report.counts] == [
        ("colon", (0, 1), (0, 612))
    ]


def test_meta_json_of_another_machine_is_read(paint, tmp_path, summary):
    author = "/remote-home/author/data/CVC-ColonDB"
    rows = []
    for stem in ("1", "10"):
        paint(f"CVC-ColonDB/images/{stem}.png")
        paint(f"CVC-ColonDB/masks/{stem}.png", value=255)
        paths = {"img_path": f"{author}/images/{stem}.png", "mask_path": f"{author}/masks/{stem}.png"}
        rows.append({**paths, "cls_name": "polyp", "specie_name": "", "anomaly": 1})
    meta = tmp_path / "CVC-ColonDB" / "meta.json"
    meta.write_text(json.dumps({"train": {}, "test": {"polyp": rows}}))
    indexed = datasets.create(f"colondb={meta}")
    assert summary(indexed) == summary(datasets.create("colondb", tmp_path))
    assert [category.name for category in indexed.categories()] == ["colon"], "the card's name, not the index's"
    check_dataset(indexed)
