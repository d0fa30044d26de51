"""Each kind of dataset through the whole harness: metrics that a dataset cannot define are null, never 0."""

from __future__ import annotations

import numpy as np


def test_anomalous_images_only_have_no_image_metrics(paint, store, blob, tmp_path, run_method):
    for stem in ("1", "10"):
        paint(f"colondb/images/{stem}.png", 20, 16)
        store(f"colondb/masks/{stem}.png", blob(20, 16))
    (cell,) = run_method("constant", "colondb", tmp_path)
    assert cell.record.status == "done" and len(cell.scores) == 2
    assert set(cell.record.image.values()) == {None}
    assert cell.record.pixel["auroc"] == 0.5


def test_images_without_masks_have_no_pixel_metrics(paint, tmp_path, run_method):
    for name in ("no/1 no.jpeg", "no/N1.JPG", "yes/Y1.jpg", "yes/Y1.png"):
        paint(f"brainmri/{name}", 20, 16)
    (cell,) = run_method("constant", "brainmri", tmp_path)
    assert set(cell.record.pixel.values()) == {None}
    assert cell.record.image["auroc"] == 0.5


def test_labels_from_masks_reach_the_metrics(paint, store, blob, tmp_path, run_method):
    """The bright image is the defective one, and the toy method scores brightness."""
    for name, value, mask in (("20000", 10, blob(12, 8, 0)), ("20001", 200, blob(12, 8))):
        store(f"ksdd2/test/{name}.png", np.full((12, 8, 3), value, np.uint8))
        store(f"ksdd2/test/{name}_GT.png", mask)
    (cell,) = run_method("good_mean", "ksdd2", tmp_path)
    assert cell.record.image["auroc"] == 1.0
    assert cell.record.details["normal"] == cell.record.details["anomalous"] == 1


def test_categories_of_a_dataset_are_cells(paint, tmp_path, run_method):
    for folder in ("Type-I RSDDs dataset", "Type-II RSDDs dataset"):
        paint(f"rsdd/{folder}/Rail surface images/rail_1.jpg", 40, 8)
        paint(f"rsdd/{folder}/GroundTruth/rail_1.png", 40, 8, value=255)
    cells = run_method("constant", "rsdd", tmp_path)
    assert sorted(cell.record.category for cell in cells) == ["type1", "type2"]
    assert {cell.record.status for cell in cells} == {"done"}
