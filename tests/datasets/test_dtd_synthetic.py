"""DTD-Synthetic: the official tree with foreign folders in it, and other names (docs/datasets/dtd_synthetic.md)."""

from __future__ import annotations

from zsadbench import datasets


def test_official_tree_tolerates_extra_folders(paint, tmp_path, verify, marked_pixels):
    for name in ("train/good/000.png", "test/good/000.png", "test/bad/000.png"):
        paint(f"dtd_synthetic/DTD-Synthetic/Woven_001/{name}")
    paint("dtd_synthetic/DTD-Synthetic/Woven_001/ground_truth/bad/000_mask.png", value=255)
    paint("dtd_synthetic/DTD-Synthetic/code/figures/000.png")
    dataset = verify(
        "dtd_synthetic",
        tmp_path,
        [
            ("Woven_001/train/good/000.png", "train", 0, "", None),
            ("Woven_001/test/bad/000.png", "test", 1, "", "Woven_001/ground_truth/bad/000_mask.png"),
            ("Woven_001/test/good/000.png", "test", 0, "", None),
        ],
    )
    assert marked_pixels(dataset, "Woven_001") == [1, 0]


def test_bayes_pfl_names_become_the_official_ones(paint, tmp_path):
    for name in ("woven5", "matted1", "blotchy"):
        paint(f"DTD/{name}/test/good/DTD_good_000_000000.bmp")
        paint(f"DTD/{name}/test/anomaly/DTD_bad_000_000001.bmp")
        paint(f"DTD/{name}/ground_truth/anomaly/DTD_bad_000_000001.png", value=255)
    dataset = datasets.create("dtd_synthetic", tmp_path)
    assert [category.name for category in dataset.categories()] == ["Blotchy_099", "Matted_069", "Woven_001"]
    assert [category.noun for category in dataset.categories()] == [
        "blotchy texture",
        "matted texture",
        "woven texture",
    ]
