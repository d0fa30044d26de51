"""BrainMRI: suffixes that lie, folders that are there twice, the part that Bayes-PFL kept (docs/datasets/brain.md)."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from PIL import Image

from zsadbench import datasets
from zsadbench.data.check import check
from zsadbench.data.images import decode_image
from zsadbench.testing import check_dataset


@pytest.fixture
def raw(paint, store, tmp_path):
    base = "brainmri/brain_tumor_dataset"
    for name in ("no/1 no.jpeg", "no/N1.JPG", "yes/Y1.jpg", "yes/Y100.JPG", "yes/Y92.jpg", "yes/Y92.png"):
        paint(f"{base}/{name}")
    pixels = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    store(f"{base}/no/no 98.jpg", Image.fromarray(pixels).quantize(16), format="PNG")
    for name in ("yes/Y1.jpg", "no/N1.JPG"):
        copy = tmp_path / "brainmri" / name
        copy.parent.mkdir()
        copy.write_bytes((tmp_path / base / name).read_bytes())
    return tmp_path


ROWS = [
    ("no/1 no.jpeg", "test", 0, "", None),
    ("no/N1.JPG", "test", 0, "", None),
    ("no/no 98.jpg", "test", 0, "", None),
    ("yes/Y1.jpg", "test", 1, "", None),
    ("yes/Y100.JPG", "test", 1, "", None),
    ("yes/Y92.jpg", "test", 1, "", None),
    ("yes/Y92.png", "test", 1, "", None),
]


def test_every_image_counts_once_whatever_its_suffix(raw, verify):
    dataset = verify("brainmri", raw, ROWS)
    assert dataset.root.name == "brain_tumor_dataset"
    assert [finding.kind for finding in check(dataset).findings] == [".jpg files that hold PNG"], "and no copies"


def test_folders_at_the_top_are_enough(raw, verify):
    inner = raw / "brainmri/brain_tumor_dataset"
    inner.rename(raw / "BrainMRI")
    (raw / "brainmri").rename(raw / "elsewhere")
    verify("brainmri", raw, ROWS)


def test_bayes_pfl_kept_two_suffixes_only(raw, verify):
    dataset = verify("brainmri.bayespfl", raw, [ROWS[2], ROWS[4]])
    assert [(category.name, category.noun) for category in dataset.categories()] == [("brain ct", "brain mri")]


def test_adaclip_copy_may_hold_two_images_of_one_stem(paint, tmp_path, verify):
    paint("BrainMRI/brain_mri/test/good/1 no.jpeg")
    paint("BrainMRI/brain_mri/test/defect/Y92.jpg")
    paint("BrainMRI/brain_mri/test/defect/Y92.png")
    (tmp_path / "BrainMRI/brain_mri/train/good").mkdir(parents=True)
    verify(
        "brainmri",
        tmp_path,
        [
            ("brain_mri/test/defect/Y92.jpg", "test", 1, "", None),
            ("brain_mri/test/defect/Y92.png", "test", 1, "", None),
            ("brain_mri/test/good/1 no.jpeg", "test", 0, "", None),
        ],
    )


def test_real_set_is_complete_and_its_oddities_are_found(shared_data):
    dataset = datasets.create("brainmri", shared_data)
    check_dataset(dataset)
    report = check(dataset)
    assert report.ok
    assert [(count.test, count.train) for count in report.counts] == [((98, 155), 0)]
    found = Counter(finding.kind for finding in report.findings)
    assert found == {".jpg files that hold PNG": 6, "identical images": 22}
    surplus = sum(f.message.count(" = ") for f in report.findings if f.kind == "identical images")
    assert surplus == 25
    modes = Counter(decode_image(sample.image).shape[2] for sample in dataset.samples("brain mri"))
    assert modes == {3: 253}


def test_part_of_the_real_set_has_the_counts_that_bayes_pfl_lists(shared_data):
    samples = datasets.create("brainmri.bayespfl", shared_data).samples("brain ct")
    assert Counter(sample.label for sample in samples) == {0: 85, 1: 68}
