"""MPDD: MVTec AD's layout (docs/datasets/mpdd.md)."""

from __future__ import annotations

import pytest

from zsadbench import datasets
from zsadbench.data.check import check


@pytest.fixture
def official(paint, tmp_path):
    paint("MPDD/connector/train/good/000.png")
    paint("MPDD/connector/test/good/000.png")
    paint("MPDD/connector/test/parts_mismatch/000.png")
    paint("MPDD/connector/ground_truth/parts_mismatch/000_mask.png", value=255)
    return tmp_path


def test_official_tree_gives_every_sample(official, verify, marked_pixels):
    rows = [
        ("connector/train/good/000.png", "train", 0, "", None),
        ("connector/test/good/000.png", "test", 0, "", None),
        (
            "connector/test/parts_mismatch/000.png",
            "test",
            1,
            "parts_mismatch",
            "connector/ground_truth/parts_mismatch/000_mask.png",
        ),
    ]
    dataset = verify("mpdd", official, sorted(rows, key=lambda row: (row[1] == "test", row[0])))
    assert marked_pixels(dataset, "connector") == [0, 1]


def test_missing_categories_are_told(official):
    report = check(datasets.create("mpdd", official))
    absent = [count.category for count in report.counts if count.test == (0, 0)]
    assert absent == ["bracket_black", "bracket_brown", "bracket_white", "metal_plate", "tubes"]
    assert not report.ok
