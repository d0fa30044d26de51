"""RSDDs: raw rails with JPEG masks, and Bayes-PFL's crops (docs/datasets/rsdd.md)."""

from __future__ import annotations

from zsadbench import datasets
from zsadbench.data.check import check

TYPE_1, TYPE_2 = "Type-I RSDDs dataset", "Type-II RSDDs dataset"


def test_raw_images_and_masks_share_a_name_and_no_image_is_normal(paint, store, blob, tmp_path, verify, marked_pixels):
    for folder, names, width in ((TYPE_1, ("rail_1", "rail_10"), 16), (TYPE_2, ("rail_2",), 6)):
        for name in names:
            store(f"RSDDs/RSDDs dataset/{folder}/Rail surface images/{name}.jpg", blob(100, width, 90) + 60)
            store(f"RSDDs/RSDDs dataset/{folder}/GroundTruth/{name}.jpg", blob(100, width), quality=75)
    dataset = verify(
        "rsdd",
        tmp_path,
        [
            (f"{folder}/Rail surface images/{name}.jpg", "test", 1, "", f"{folder}/GroundTruth/{name}.jpg")
            for folder, name in ((TYPE_1, "rail_1"), (TYPE_1, "rail_10"), (TYPE_2, "rail_2"))
        ],
    )
    assert [(category.name, category.noun) for category in dataset.categories()] == [
        ("type1", "rail surface"),
        ("type2", "rail surface"),
    ]
    assert marked_pixels(dataset, "type1") == [9, 9]
    assert "unexpected mask values" in {finding.kind for finding in check(dataset).findings}
    assert not dataset.card.image_level


def test_bayes_pfl_crops_are_another_dataset(paint, tmp_path, verify):
    paint("RSDD/Metal15/test/good/RSDD_I-metal-null-000001.bmp")
    paint("RSDD/Metal15/test/anomaly/RSDD_II-metal-defect-000001.bmp")
    paint("RSDD/Metal15/ground_truth/anomaly/RSDD_II-metal-defect-000001.png", value=255)
    base = "Metal15"
    dataset = verify(
        "rsdd.bayespfl",
        tmp_path,
        [
            (
                f"{base}/test/anomaly/RSDD_II-metal-defect-000001.bmp",
                "test",
                1,
                "",
                f"{base}/ground_truth/anomaly/RSDD_II-metal-defect-000001.png",
            ),
            (f"{base}/test/good/RSDD_I-metal-null-000001.bmp", "test", 0, "", None),
        ],
    )
    assert dataset.card.image_level and "Confounded" in dataset.card.notes


def test_variant_looks_for_its_own_folder_first(paint, tmp_path):
    paint("rsdd/RSDDs dataset/Type-I RSDDs dataset/Rail surface images/rail_1.jpg")
    paint("RSDD/Metal15/test/good/RSDD_I-metal-null-000001.bmp")
    assert datasets.create("rsdd.bayespfl", tmp_path).root == tmp_path / "RSDD"
    assert datasets.create("rsdd", tmp_path).root == tmp_path / "rsdd" / "RSDDs dataset"
