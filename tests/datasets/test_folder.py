"""A user's own images: trees, index files, names, and what the card promises."""

from __future__ import annotations

import csv

import pytest

from zsadbench import datasets
from zsadbench.data.check import check
from zsadbench.errors import DataError
from zsadbench.testing import check_dataset


@pytest.fixture
def tree(paint, tmp_path):
    paint("tiles/test/good/a.jpg")
    paint("tiles/test/crack/b.jpg")
    paint("tiles/ground_truth/crack/b.png", value=255)
    return tmp_path / "tiles"


def test_one_category_tree_is_named_after_its_folder(tree, summary, marked_pixels):
    dataset = datasets.create(f"folder={tree}")
    assert dataset.name == "folder.tiles" and dataset.card.title == "tiles"
    assert [category.name for category in dataset.categories()] == ["tiles"]
    assert summary(dataset) == [
        ("test/crack/b.jpg", "test", 1, "crack", "ground_truth/crack/b.png"),
        ("test/good/a.jpg", "test", 0, "", None),
    ]
    assert marked_pixels(dataset, "tiles") == [1, 0]
    check_dataset(dataset)


def test_tree_of_several_categories(tree, paint):
    paint("tiles/test/../../pins/test/good/a.png")
    dataset = datasets.create(f"folder={tree.parent}")
    assert [category.name for category in dataset.categories()] == ["pins", "tiles"]
    check_dataset(dataset)


def test_tree_without_masks_has_image_metrics_only(tree):
    (tree / "ground_truth/crack/b.png").unlink()
    (tree / "ground_truth/crack").rmdir()
    (tree / "ground_truth").rmdir()
    card = datasets.create(f"folder={tree}").card
    assert card.image_level and not card.pixel_level


def test_tree_without_normal_images_has_no_image_metrics(tree):
    (tree / "test/good/a.jpg").unlink()
    card = datasets.create(f"folder={tree}").card
    assert card.pixel_level and not card.image_level


def test_variant_gt0_reads_masks_of_zero_and_one(tree, paint, marked_pixels):
    paint("tiles/ground_truth/crack/b.png", value=1)
    dataset = datasets.create(f"folder.gt0={tree}")
    assert dataset.name == "folder.gt0.tiles"
    assert marked_pixels(dataset, "tiles") == [1, 0]


def write_index(path, rows):
    path.write_text("image,label,mask\n" + "".join(f"{row}\n" for row in rows))
    return path


def test_index_file_is_named_after_folder_and_file(tree, marked_pixels):
    rows = ["test/crack/b.jpg,1,ground_truth/crack/b.png", "test/good/a.jpg,0,"]
    path = write_index(tree / "my tiles.csv", rows)
    dataset = datasets.create(f"folder={path}")
    assert dataset.name == "folder.tiles.my_tiles" and dataset.root == tree
    assert [category.name for category in dataset.categories()] == ["tiles"]
    assert marked_pixels(dataset, "tiles") == [1, 0]
    check_dataset(dataset)


def test_images_of_an_index_elsewhere_are_found_below_the_data_root(tree, tmp_path):
    (tmp_path / "lists").mkdir()
    path = write_index(tmp_path / "lists" / "index.csv", ["test/good/a.jpg,0,"])
    with pytest.raises(DataError, match=r"line 2: image test/good/a\.jpg does not exist below .*lists"):
        datasets.create(f"folder={path}")
    dataset = datasets.create(f"folder={path}", data_root=tree)
    assert dataset.root == tree
    assert [dataset.sample_id(sample) for sample in dataset.samples("tiles")] == ["test/good/a.jpg"]


def test_one_missing_mask_among_others_is_refused(tree, paint):
    paint("tiles/test/crack/c.jpg")
    path = write_index(tree / "i.csv", ["test/crack/b.jpg,1,ground_truth/crack/b.png", "test/crack/c.jpg,1,"])
    with pytest.raises(DataError, match=r"c\.jpg is anomalous, but has no mask, while others"):
        datasets.create(f"folder={path}")


def test_folder_needs_a_path_and_a_layout(tmp_path):
    with pytest.raises(DataError, match="expected folder=PATH"):
        datasets.create("folder", tmp_path)
    with pytest.raises(DataError, match="test/good and test/DEFECT"):
        datasets.create(f"folder={tmp_path}")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError, match="is no index file"):
        datasets.create(f"folder={tmp_path / 'notes.txt'}")


def test_magnetic_tiles_run_through_a_csv_of_absolute_paths(shared_data, tmp_path, marked_pixels):
    tiles = shared_data / "magnetic_tile"
    if not tiles.is_dir():
        pytest.skip(f"real images are not there: {tiles}")
    with (tmp_path / "index.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "mask", "label", "category", "defect"])
        for image in sorted(tiles.glob("MT_*/Imgs/*.jpg")):
            defect = image.parts[-3].removeprefix("MT_").lower()
            label = "normal" if defect == "free" else "anomaly"
            writer.writerow([image, image.with_suffix(".png"), label, "tile", defect])
    dataset = datasets.create(f"folder={tmp_path / 'index.csv'}", data_root=tiles)
    samples = dataset.samples("tile")
    assert [sum(sample.label == label for sample in samples) for label in (0, 1)] == [60, 120]
    assert {sample.defect for sample in samples} == {"", "blowhole", "break", "crack", "fray", "uneven"}
    counts = marked_pixels(dataset, "tile")
    empty = [dataset.sample_id(s) for s, count in zip(samples, counts, strict=True) if s.label == 1 and count == 0]
    assert empty == ["MT_Uneven/Imgs/exp4_num_124690.jpg"]
    check_dataset(dataset)
    report = check(dataset)
    assert report.ok and {"empty mask": tuple(empty)}.items() <= {f.kind: f.files for f in report.findings}.items()
