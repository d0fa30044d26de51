"""MVTec AD: the official tree with its quirks, Bayes-PFL's copy, incomplete copies (docs/datasets/mvtec.md)."""

from __future__ import annotations

import pytest
from PIL import Image

from zsadbench import datasets
from zsadbench.errors import DataError
from zsadbench.testing import check_dataset


@pytest.fixture
def official(paint, tmp_path):
    paint("mvtec/bottle/train/good/000.png")
    paint("mvtec/bottle/test/good/000.png")
    paint("mvtec/bottle/test/broken_large/000.png")
    paint("mvtec/bottle/ground_truth/broken_large/000_mask.png", value=255)
    (tmp_path / "mvtec/bottle/readme.txt").touch()
    (tmp_path / "mvtec/bottle/test/good/license.txt").touch()
    (tmp_path / "mvtec/some_notes").mkdir()
    Image.new("L", (7, 5)).save(paint("mvtec/grid/test/good/000.png"))
    return tmp_path


def test_official_tree_gives_every_sample(official, summary, marked_pixels):
    dataset = datasets.create("mvtec", official)
    assert summary(dataset) == [
        ("bottle/train/good/000.png", "train", 0, "", None),
        (
            "bottle/test/broken_large/000.png",
            "test",
            1,
            "broken_large",
            "bottle/ground_truth/broken_large/000_mask.png",
        ),
        ("bottle/test/good/000.png", "test", 0, "", None),
        ("grid/test/good/000.png", "test", 0, "", None),
    ]
    assert marked_pixels(dataset, "bottle") == [1, 0]
    check_dataset(dataset)


def test_nested_top_folder_gives_the_same_sample_names(official, summary):
    before = summary(datasets.create("mvtec", official))
    (official / "mvtec").rename(official / "mvtec_anomaly_detection")
    (official / "outer").mkdir()
    (official / "mvtec_anomaly_detection").rename(official / "outer" / "mvtec_anomaly_detection")
    assert summary(datasets.create(f"mvtec={official / 'outer'}")) == before


def test_bayes_pfl_copy_takes_the_defect_from_the_name(paint, tmp_path, summary):
    paint("bottle/train/good/mvtec_000000.bmp")
    paint("bottle/test/good/mvtec_good_000001.bmp")
    paint("bottle/test/anomaly/mvtec_broken_large_000002.bmp")
    paint("bottle/ground_truth/anomaly/mvtec_broken_large_000002.png", value=255)
    dataset = datasets.create(f"mvtec={tmp_path}")
    assert [row[1:] for row in summary(dataset)] == [
        ("train", 0, "", None),
        ("test", 1, "broken_large", "bottle/ground_truth/anomaly/mvtec_broken_large_000002.png"),
        ("test", 0, "", None),
    ]
    check_dataset(dataset)


def test_missing_mask_names_the_image(official):
    (official / "mvtec/bottle/ground_truth/broken_large/000_mask.png").unlink()
    with pytest.raises(DataError, match=r"broken_large/000\.png has no mask"):
        datasets.create("mvtec", official).categories()


def test_folder_without_categories_is_refused_at_once(tmp_path):
    (tmp_path / "mvtec" / "images").mkdir(parents=True)
    with pytest.raises(DataError, match=r"category folders such as bottle/test.*It holds images"):
        datasets.create("mvtec", tmp_path)


def test_card_has_the_published_counts(listed):
    card = listed("mvtec")
    assert len(card.expected) == 15
    assert tuple(map(sum, zip(*card.expected.values(), strict=True))) == (467, 1258)
    assert sum(card.expected_train.values()) == 3629


def test_real_images_are_read(shared_data, marked_pixels):
    dataset = datasets.create("mvtec", shared_data)
    assert [category.name for category in dataset.categories()] == ["leather", "transistor"]
    counts = marked_pixels(dataset, "leather")
    labels = [sample.label for sample in dataset.samples("leather")]
    assert [count > 0 for count in counts] == [label == 1 for label in labels]
    assert sum(labels) == 11 and len(labels) == 15
    check_dataset(dataset)
