"""DAGM: the Kaggle copy with Labels.txt, AdaCLIP's copy and Bayes-PFL's (docs/datasets/dagm.md)."""

from __future__ import annotations

import json

import pytest

from zsadbench import datasets
from zsadbench.errors import DataError

BASE = "dagm/DAGM_KaggleUpload/Class1"
TEST = "1\n1\t0\t0001.PNG\t0\t0\n2\t1\t0002.PNG\t0\t0002_label.PNG\n"
TRAIN = "1\n1\t0\t0576.PNG\t0\t0\n2\t1\t0577.PNG\t0\t0577_label.PNG\n"


@pytest.fixture
def official(paint, tmp_path):
    for split, table, names in (("Test", TEST, ("0001", "0002")), ("Train", TRAIN, ("0576", "0577"))):
        for name in names:
            paint(f"{BASE}/{split}/{name}.PNG")
        paint(f"{BASE}/{split}/Label/{names[1]}_label.PNG", value=255)
        (tmp_path / BASE / split / "Label/Labels.txt").write_text(table)
        (tmp_path / BASE / split / "Thumbs.db").touch()
    return tmp_path


def test_labels_txt_gives_the_labels_of_the_official_test_part(official, verify, marked_pixels):
    dataset = verify(
        "dagm",
        official,
        [
            ("Class1/Train/0576.PNG", "train", 0, "", None),
            ("Class1/Test/0001.PNG", "test", 0, "", None),
            ("Class1/Test/0002.PNG", "test", 1, "", "Class1/Test/Label/0002_label.PNG"),
        ],
    )
    assert marked_pixels(dataset, "Class1") == [0, 1]
    assert [category.noun for category in dataset.categories()] == ["textured surface"]


def test_doubly_nested_archive_gives_the_same_names(official, summary):
    before = summary(datasets.create("dagm", official))
    (official / "dagm").rename(official / "dagm_kaggleupload")
    assert summary(datasets.create("dagm", official)) == before
    (official / "outer").mkdir()
    (official / "dagm_kaggleupload").rename(official / "outer/dagm_kaggleupload")
    assert summary(datasets.create(f"dagm={official / 'outer'}")) == before


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("1\n1\t0\t0001.PNG\t0\t0\n", r"0002\.PNG of .*Test is not listed in .*Labels\.txt"),
        (TEST.replace("1\t0002.PNG\t0\t0002_label.PNG", "0\t0002.PNG\t0\t0"), r"0002_label\.PNG of .* is not listed"),
        (TEST + "3\t0\t0003.PNG\t0\t0\n", r"lists 0003\.PNG, which is not there"),
        (TEST + "3\t0\t../Train/0576.PNG\t0\t0\n", r"lists \.\./Train/0576\.PNG, which is not there"),
        (TEST + "3\t1\t0001.PNG\t0\t0002_label.PNG\n", r"line 4: 0001\.PNG is listed again"),
        (TEST.replace("1\t0002", "2\t0002"), r"Labels\.txt, line 3: got"),
        (TEST.replace("0002_label.PNG", "0"), r"Labels\.txt, line 3: got"),
        (TEST.replace("\t", ";"), r"Labels\.txt, line 2: got"),
    ],
    ids=[
        "image not listed",
        "mask of a normal image",
        "missing image",
        "image elsewhere",
        "image twice",
        "no flag",
        "defect without mask",
        "separator",
    ],
)
def test_contradictions_name_the_file_and_the_line(official, table, words):
    (official / BASE / "Test/Label/Labels.txt").write_text(table)
    with pytest.raises(DataError, match=words):
        datasets.create("dagm", official).categories()


def test_copy_without_labels_txt_is_refused_because_a_lost_mask_would_look_normal(official):
    (official / BASE / "Train/Label/Labels.txt").unlink()
    with pytest.raises(DataError, match=r"Train/Label/Labels\.txt cannot be read.*It has the labels"):
        datasets.create("dagm", official).categories()


def test_adaclip_copy(paint, tmp_path, verify):
    base = "DAGM_anomaly_detection/Class10"
    paint(f"{base}/train/good/0001.PNG")
    paint(f"{base}/test/good/0002.PNG")
    paint(f"{base}/test/defect/0003.PNG")
    paint(f"{base}/ground_truth/defect/0003_label.PNG", value=255)
    verify(
        "dagm.adaclip",
        tmp_path,
        [
            ("Class10/train/good/0001.PNG", "train", 0, "", None),
            ("Class10/test/defect/0003.PNG", "test", 1, "", "Class10/ground_truth/defect/0003_label.PNG"),
            ("Class10/test/good/0002.PNG", "test", 0, "", None),
        ],
    )


def test_bayes_pfl_copy_through_its_tree_and_its_index(paint, tmp_path, verify, summary):
    image = "DAGM/Fabric7/test/anomaly/DAGM2007-fabric-defect-classes7_0001_0000000001.bmp"
    mask = "DAGM/Fabric7/ground_truth/anomaly/DAGM2007-fabric-defect-classes7_0001_0000000001.png"
    paint(image)
    paint(mask, value=255)
    dataset = verify(
        "dagm.bayespfl", tmp_path, [(image.removeprefix("DAGM/"), "test", 1, "", mask.removeprefix("DAGM/"))]
    )
    row = {"img_path": image, "mask_path": mask, "cls_name": "Fabric7", "specie_name": "anomaly", "anomaly": 1}
    empty = {"img_path": "", "mask_path": "", "cls_name": "Fabric7", "specie_name": "", "anomaly": 0}
    content = {"train": {"Fabric7": [empty]}, "test": {"Fabric7": [row | {"dataset_name": "DAGM"}]}}
    (tmp_path / "meta_DAGM.json").write_text(json.dumps(content))
    indexed = datasets.create(f"dagm.bayespfl={tmp_path / 'meta_DAGM.json'}")
    assert summary(indexed) == [(image, "test", 1, "", mask)]
    assert indexed.categories()[0].name == dataset.categories()[0].name == "Fabric7"


def test_anomalyclip_index_with_capital_splits_is_read(official, summary):
    rows = [
        {"img_path": "Class1/Test/0002.PNG", "mask_path": "Class1/Test/Label/0002_label.PNG", "anomaly": 1},
        {"img_path": "Class1/Test/0001.PNG", "mask_path": "", "anomaly": 0},
    ]
    meta = official / "dagm/DAGM_KaggleUpload/meta.json"
    meta.write_text(json.dumps({"Train": {}, "Test": {"Class1": rows}}))
    from_folder = [row for row in summary(datasets.create("dagm", official)) if row[1] == "test"]
    assert summary(datasets.create(f"dagm={meta}")) == from_folder
