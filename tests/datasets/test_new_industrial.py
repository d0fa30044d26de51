"""MVTec LOCO, MVTec AD 2 and Real-IAD: official layouts, as far as they are public (docs/datasets/mvtec.md)."""

from __future__ import annotations

import json

import numpy as np
import pytest

from zsadbench import datasets
from zsadbench.errors import DataError
from zsadbench.testing import check_dataset


@pytest.fixture
def loco(paint, store, tmp_path):
    base = "mvtec_loco/mvtec_loco_anomaly_detection/screw_bag"
    for name in ("train/good/000", "validation/good/000", "test/good/000", "test/logical_anomalies/000"):
        paint(f"{base}/{name}.png", 6, 9)
    paint(f"{base}/test/structural_anomalies/000.png", 6, 9)
    for kind, marks in (("logical_anomalies", ((0, 236), (1, 255))), ("structural_anomalies", ((5, 1),))):
        for i, (row, value) in enumerate(marks):
            mask = np.zeros((6, 9), np.uint8)
            mask[row, :2] = value
            store(f"{base}/ground_truth/{kind}/000/{i:03}.png", mask)
    (tmp_path / base / "defects_config.json").touch()
    return tmp_path


def test_loco_unites_all_masks_of_an_image_whatever_their_value(loco, verify, marked_pixels):
    truth = "screw_bag/ground_truth"
    dataset = verify(
        "mvtec_loco",
        loco,
        [
            ("screw_bag/train/good/000.png", "train", 0, "", None),
            ("screw_bag/test/good/000.png", "test", 0, "", None),
            (
                "screw_bag/test/logical_anomalies/000.png",
                "test",
                1,
                "logical_anomalies",
                f"{truth}/logical_anomalies/000/000.png",
            ),
            (
                "screw_bag/test/structural_anomalies/000.png",
                "test",
                1,
                "structural_anomalies",
                f"{truth}/structural_anomalies/000/000.png",
            ),
        ],
    )
    assert marked_pixels(dataset, "screw_bag") == [0, 4, 2]


def test_loco_index_that_names_the_first_mask_gets_them_all(loco, marked_pixels):
    row = {
        "img_path": "screw_bag//test/logical_anomalies/000.png",
        "mask_path": "screw_bag//ground_truth/logical_anomalies/000/000.png",
        "specie_name": "logical_anomalies",
        "anomaly": 1,
    }
    meta = loco / "mvtec_loco/mvtec_loco_anomaly_detection/meta.json"
    meta.write_text(json.dumps({"train": {}, "validation": {}, "test": {"screw_bag": [row]}}))
    dataset = datasets.create(f"mvtec_loco={meta}")
    assert marked_pixels(dataset, "screw_bag") == [4]


def test_loco_image_without_masks_is_named(loco):
    next(loco.rglob("structural_anomalies/000/000.png")).unlink()
    with pytest.raises(DataError, match=r"structural_anomalies/000 holds no mask"):
        datasets.create("mvtec_loco", loco).categories()
    next(loco.rglob("ground_truth/structural_anomalies/000")).rmdir()
    with pytest.raises(DataError, match="do not agree on 000"):
        datasets.create("mvtec_loco", loco).categories()


def test_ad2_reads_the_public_part_only(paint, tmp_path, verify):
    base = "mvtec_ad2/mvtec_ad_2/can"
    for name in ("train/good/000_regular", "validation/good/000_regular", "test_public/good/000_regular"):
        paint(f"{base}/{name}.png")
    paint(f"{base}/test_public/bad/000_overexposed.png")
    paint(f"{base}/test_public/ground_truth/bad/000_overexposed_mask.png", value=255)
    paint(f"{base}/test_private/000_regular.png")
    paint(f"{base}/test_private_mixed/000_mixed.png")
    verify(
        "mvtec_ad2",
        tmp_path,
        [
            ("can/train/good/000_regular.png", "train", 0, "", None),
            (
                "can/test_public/bad/000_overexposed.png",
                "test",
                1,
                "",
                "can/test_public/ground_truth/bad/000_overexposed_mask.png",
            ),
            ("can/test_public/good/000_regular.png", "test", 0, "", None),
        ],
    )


OK, NG = "OK/S0001/audiojack_0001_OK_C1_20230101", "NG/BX/S0002/audiojack_0002_NG_BX_C1_20230101"
HIDDEN = NG.replace("C1", "C2")


def row(name, defect="OK", mask=None):
    return {"category": "audiojack", "anomaly_class": defect, "image_path": f"{name}.jpg", "mask_path": mask}


@pytest.fixture
def real_iad(paint, tmp_path):
    def write(test):
        for name in (OK, NG, HIDDEN, "OK/S0003/a"):
            paint(f"Real-IAD/realiad_1024/audiojack/{name}.jpg")
        paint(f"Real-IAD/realiad_1024/audiojack/{NG}_mask.png", value=255)
        folder = tmp_path / "Real-IAD/realiad_jsons/realiad_jsons"
        folder.mkdir(parents=True, exist_ok=True)
        content = {"meta": {"normal_class": "OK", "prefix": "audiojack/"}, "train": [row("OK/S0003/a")], "test": test}
        (folder / "audiojack.json").write_text(json.dumps(content))
        (folder / "zipper.json").write_text(json.dumps(content))  # a category that was not downloaded
        return tmp_path

    return write


def test_real_iad_takes_split_and_label_from_the_lists(real_iad, verify):
    base = "realiad_1024/audiojack"
    root = real_iad([row(OK), row(NG, "BX", f"{NG}_mask.png"), row(HIDDEN)])
    dataset = verify(
        "real_iad",
        root,
        [
            (f"{base}/OK/S0003/a.jpg", "train", 0, "", None),
            (f"{base}/{NG}.jpg", "test", 1, "BX", f"{base}/{NG}_mask.png"),
            (f"{base}/{HIDDEN}.jpg", "test", 0, "", None),
            (f"{base}/{OK}.jpg", "test", 0, "", None),
        ],
    )
    assert [category.name for category in dataset.categories()] == ["audiojack"]


@pytest.mark.parametrize(
    ("test", "words"),
    [
        ([row("OK/nowhere")], r"test row 1: image_path is 'OK/nowhere\.jpg'"),
        ([row("../../../secret")], "expected a file below"),
        ([row("/etc/secret")], "expected a file below"),
        ([row("a" * 5000)], "expected a file below"),
        ([row(NG, "BX", "../mask.png")], "mask_path is"),
        ([{"image_path": f"{OK}.jpg"}], "expected an object with image_path"),
        ({}, "expected lists of images"),
    ],
)
def test_real_iad_lists_that_are_wrong_name_the_row(real_iad, test, words):
    root = real_iad(test)
    with pytest.raises(DataError, match=words):
        check_dataset(datasets.create("real_iad", root))


def test_real_iad_may_lie_at_a_path_with_dots(real_iad):
    root = real_iad([row(OK), row(NG, "BX", f"{NG}_mask.png")])
    assert len(datasets.create("real_iad", root / "Real-IAD" / "..").samples("audiojack")) == 2
