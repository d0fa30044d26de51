"""Shared folder layouts, with empty files: nothing here may read a pixel."""

from __future__ import annotations

from pathlib import Path

import pytest

from zsadbench.data import layouts
from zsadbench.errors import DataError


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return [root / name for name in names]


@pytest.mark.parametrize("name", ["0001.PNG", "a.jpg", "b.JPEG", "c.bmp", "d.tif", "no 96.jpg"])
def test_images_are_known_by_their_suffix_in_any_case(name):
    assert layouts.is_image_name(name)


@pytest.mark.parametrize(
    "name",
    ["Thumbs.db", ".DS_Store", "._000.png", "readme.txt", "10301 (copy).png", "10301_GT (copy).png", "png", "a.csv"],
)
def test_stray_files_are_no_images(name):
    assert not layouts.is_image_name(name)


def test_images_in_is_sorted_and_skips_folders(tmp_path):
    touch(tmp_path, "10.png", "1.png", "Thumbs.db", ".ipynb_checkpoints/1-checkpoint.png", "folder.png/1.png")
    assert [path.name for path in layouts.images_in(tmp_path)] == ["1.png", "10.png"]
    assert layouts.images_in(tmp_path / "absent") == []


def test_masks_pair_by_name_where_sorted_order_differs(tmp_path):
    images = touch(tmp_path / "images", "1.png", "10.png", "2.png")
    masks = touch(tmp_path / "masks", "10_mask.png", "1_mask.png", "2_mask.png")
    pairs = layouts.pair_masks(images, masks)
    assert {image.stem: mask.name for image, mask in pairs.items()} == {
        "1": "1_mask.png",
        "10": "10_mask.png",
        "2": "2_mask.png",
    }


@pytest.mark.parametrize("mask", ["0001.bmp", "0001_mask.png", "0001_label.PNG"])
def test_mask_may_have_another_suffix_and_file_type(tmp_path, mask):
    images, masks = touch(tmp_path / "images", "0001.JPG"), touch(tmp_path / "masks", mask)
    assert layouts.pair_masks(images, masks) == {images[0]: masks[0]}


def test_image_whose_name_ends_in_mask_pairs_with_the_equal_name(tmp_path):
    images = touch(tmp_path / "images", "gas_mask.png", "gas.png")
    masks = touch(tmp_path / "masks", "gas_mask.png", "gas.png")
    assert layouts.pair_masks(images, masks) == dict(zip(images, masks, strict=True))


def test_image_without_mask_is_named(tmp_path):
    images, masks = touch(tmp_path, "b.png", "a.png"), touch(tmp_path / "masks", "b_mask.png")
    with pytest.raises(DataError, match=r"a\.png has no mask"):
        layouts.pair_masks(images, masks)


def test_mask_without_image_is_named(tmp_path):
    images, masks = touch(tmp_path, "a.png"), touch(tmp_path / "masks", "a.png", "c_mask.png")
    with pytest.raises(DataError, match=r"mask .*c_mask\.png has no image"):
        layouts.pair_masks(images, masks)


def test_two_masks_of_one_image_are_refused(tmp_path):
    images, masks = touch(tmp_path, "a.png"), touch(tmp_path / "masks", "a.png", "a_mask.png")
    with pytest.raises(DataError, match="has two masks"):
        layouts.pair_masks(images, masks)


def test_two_files_of_one_stem_are_refused_only_where_masks_pair_by_it(tmp_path):
    touch(tmp_path / "test/good", "0020.bmp", "0020.png")
    assert [sample.image.name for sample in layouts.mvtec_tree(tmp_path, "01")] == ["0020.bmp", "0020.png"]
    touch(tmp_path, "test/ko/0020.bmp", "test/ko/0020.png")
    assert len(list(layouts.mvtec_tree(tmp_path, "01", has_masks=False))) == 4
    touch(tmp_path, "ground_truth/ko/0020.png")
    with pytest.raises(DataError, match=r"0020\.bmp and 0020\.png have the same name"):
        list(layouts.mvtec_tree(tmp_path, "01"))


def test_tree_gives_splits_labels_defects_and_masks(tmp_path):
    touch(
        tmp_path,
        "train/good/000.png",
        "test/good/000.png",
        "test/crack/000.png",
        "test/ko/001.png",
        "ground_truth/crack/000_mask.png",
        "ground_truth/ko/001.png",
        "ground_truth/good/000.png",
        "readme.txt",
        "test/.ipynb_checkpoints/000.png",
    )
    found = {
        (
            sample.image.relative_to(tmp_path).as_posix(),
            sample.split,
            sample.label,
            sample.defect,
            sample.mask and sample.mask.name,
        )
        for sample in layouts.mvtec_tree(tmp_path, "tile")
    }
    assert found == {
        ("train/good/000.png", "train", 0, "", None),
        ("test/good/000.png", "test", 0, "", None),
        ("test/crack/000.png", "test", 1, "crack", "000_mask.png"),
        ("test/ko/001.png", "test", 1, "", "001.png"),
    }


def test_tree_without_ground_truth_needs_to_be_told(tmp_path):
    touch(tmp_path, "test/good/000.png", "test/crack/000.png")
    with pytest.raises(DataError, match="crack was taken for a kind of defect, but its masks are not there"):
        list(layouts.mvtec_tree(tmp_path, "tile"))
    assert [sample.mask for sample in layouts.mvtec_tree(tmp_path, "tile", has_masks=False)] == [None, None]


def test_find_top_prefers_the_given_folder_then_nested_ones(tmp_path):
    touch(tmp_path, "inner/sign", "other/sign")

    def has_sign(path: Path) -> bool:
        return (path / "sign").exists()

    assert layouts.find_top(tmp_path, ("inner", "other"), has_sign, "a sign") == tmp_path / "inner"
    touch(tmp_path, "sign")
    assert layouts.find_top(tmp_path, ("inner", "other"), has_sign, "a sign") == tmp_path


def test_find_top_tells_what_it_saw(tmp_path):
    touch(tmp_path, "unexpected/file")
    with pytest.raises(DataError, match=r"expected layout: a sign, there or in inner\. It holds unexpected"):
        layouts.find_top(tmp_path, ("inner",), lambda path: False, "a sign")
    with pytest.raises(DataError, match="is not a folder"):
        layouts.find_top(tmp_path / "unexpected" / "file", (), lambda path: False, "a sign")


def test_flat_folders_of_images_and_masks_pair_by_name(tmp_path):
    touch(tmp_path, "images/1.png", "images/10.png", "masks/1.jpg", "masks/10.jpg", "masks/Thumbs.db")
    samples = list(layouts.anomalous_samples(tmp_path / "images", tmp_path / "masks", "colon"))
    assert [(sample.image.stem, sample.mask.name, sample.label, sample.defect) for sample in samples] == [
        ("1", "1.jpg", 1, ""),
        ("10", "10.jpg", 1, ""),
    ]
