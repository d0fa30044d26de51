"""VisA: the official tar with its split file and the three rearranged copies (docs/datasets/visa.md)."""

from __future__ import annotations

import pytest

from zsadbench import datasets
from zsadbench.errors import DataError
from zsadbench.testing import check_dataset

SPLIT = """object,split,label,image,mask
candle,train,normal,candle/Data/Images/Normal/0000.JPG,
candle,test,normal,candle/Data/Images/Normal/0001.JPG,
candle,test,anomaly,candle/Data/Images/Anomaly/000.JPG,candle/Data/Masks/Anomaly/000.png
pcb1,test,normal,pcb1/Data/Images/Normal/0000.JPG,
"""


@pytest.fixture
def official(paint, tmp_path):
    for name in ("Normal/0000.JPG", "Normal/0001.JPG", "Anomaly/000.JPG"):
        paint(f"visa/candle/Data/Images/{name}")
    paint("visa/candle/Data/Masks/Anomaly/000.png", value=3)
    (tmp_path / "visa/split_csv").mkdir()
    (tmp_path / "visa/split_csv/1cls.csv").write_text(SPLIT)
    return tmp_path


def test_official_split_file_gives_every_sample_of_the_categories_present(official, summary):
    dataset = datasets.create("visa", official)
    assert summary(dataset) == [
        ("candle/Data/Images/Normal/0000.JPG", "train", 0, "", None),
        ("candle/Data/Images/Anomaly/000.JPG", "test", 1, "", "candle/Data/Masks/Anomaly/000.png"),
        ("candle/Data/Images/Normal/0001.JPG", "test", 0, "", None),
    ]
    check_dataset(dataset)


def test_masks_of_class_indices_are_not_empty(official, marked_pixels):
    assert marked_pixels(datasets.create("visa", official), "candle") == [1, 0]


def test_missing_file_names_the_line_of_the_split(official):
    (official / "visa/candle/Data/Images/Normal/0001.JPG").unlink()
    with pytest.raises(DataError, match=r"1cls\.csv, line 3: image .*0001\.JPG does not exist"):
        datasets.create("visa", official).categories()


@pytest.mark.parametrize(
    ("top", "names", "defective"),
    [
        ("VisA_pytorch/1cls", ("0000.JPG", "0001.JPG", "000.JPG", "000.png"), "bad"),  # spot-diff
        ("visa_pytorch", ("0000.JPG", "0001.JPG", "000.JPG", "000.png"), "bad"),  # anomalib
        ("", ("visa_0000_000000.bmp", "visa_0001_000001.bmp", "visa_000_000002.bmp", "visa_000_000002.png"), "anomaly"),
    ],
    ids=["spot-diff", "anomalib", "Bayes-PFL"],
)
def test_rearranged_copies_give_the_same_samples(paint, tmp_path, summary, marked_pixels, top, names, defective):
    base = f"{top}/candle" if top else "candle"
    paint(f"{base}/train/good/{names[0]}")
    paint(f"{base}/test/good/{names[1]}")
    paint(f"{base}/test/{defective}/{names[2]}")
    paint(f"{base}/ground_truth/{defective}/{names[3]}", value=255)
    (tmp_path / base / "train" / defective).mkdir()
    dataset = datasets.create(f"visa={tmp_path}")
    assert sorted(summary(dataset)) == sorted(
        [
            (f"candle/train/good/{names[0]}", "train", 0, "", None),
            (f"candle/test/{defective}/{names[2]}", "test", 1, "", f"candle/ground_truth/{defective}/{names[3]}"),
            (f"candle/test/good/{names[1]}", "test", 0, "", None),
        ]
    )
    assert sum(marked_pixels(dataset, "candle")) == 1
    check_dataset(dataset)


def test_images_without_a_split_file_are_refused(paint, tmp_path):
    paint("candle/Data/Images/Normal/0000.JPG")
    with pytest.raises(DataError, match=r"split_csv/1cls\.csv beside candle/Data"):
        datasets.create(f"visa={tmp_path}")


def test_card_has_the_published_counts_and_readable_nouns(listed, official):
    card = listed("visa")
    assert tuple(map(sum, zip(*card.expected.values(), strict=True))) == (962, 1200)
    assert sum(card.expected_train.values()) == 8659
    assert card.mask_rule == "gt0" and card.nouns["chewinggum"] == "chewing gum"
