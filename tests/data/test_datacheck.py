"""`data check` on tiny MVTec replicas with one defect each, and the contract of dataset adapters."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from zsadbench import datasets
from zsadbench.data.check import check, render
from zsadbench.datasets import Dataset, DatasetCard, Sample
from zsadbench.testing import check_dataset

CARD = DatasetCard(
    title="Tiles",
    domain="custom",
    reference="none",
    source="tests",
    licence="none",
    image_level=True,
    pixel_level=True,
    expected={"tile": (2, 1)},
    expected_train={"tile": 1},
)


class Tiles(Dataset):
    """Two normal and one defective test image, one normal train image."""

    cards: ClassVar = {"default": CARD}

    def scan(self):
        yield Sample(self.root / "train.png", None, 0, "tile", split="train")
        yield Sample(self.root / "bad.png", self.root / "bad_mask.png", 1, "tile", "crack")
        yield from (Sample(path, None, 0, "tile") for path in self.root.glob("good*.png"))


@pytest.fixture
def tiles(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("train", "bad", "good1", "good2"):
        Image.fromarray(rng.integers(0, 256, (6, 9, 3), dtype=np.uint8)).save(tmp_path / f"{name}.png")
    mask = np.zeros((6, 9), np.uint8)
    mask[1, 2] = 255
    Image.fromarray(mask).save(tmp_path / "bad_mask.png")
    return Tiles(tmp_path, "default", "tiles")


def problems(report):
    return [(finding.kind, finding.message) for finding in report.findings if finding.wrong]


def test_complete_dataset_is_ok_and_progress_is_reported(tiles):
    steps = []
    report = check(tiles, lambda done, total: steps.append((done, total)))
    assert report.ok and report.findings == ()
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    (count,) = report.counts
    assert (count.test, count.train, count.complete) == ((2, 1), 1, True)
    assert "Everything is as expected." in render(report)


def test_missing_images_and_absent_categories_are_counted(tiles, tmp_path):
    tiles.card = replace(tiles.card, expected={"tile": (2, 1), "pin": (5, 5)})
    (tmp_path / "good2.png").unlink()
    report = check(tiles)
    text = render(report)
    assert not report.ok and problems(report) == []
    assert "1 of 2" in text and "test incomplete" in text and "absent" in text and "Not as expected" in text


def test_absent_train_split_is_fine_but_a_partial_one_is_not(tiles):
    tiles.card = replace(tiles.card, expected_train={"tile": 3})
    assert not check(tiles).ok
    assert "train incomplete" in render(check(tiles))
    tiles.scan = lambda: (sample for sample in Tiles.scan(tiles) if sample.split == "test")
    del tiles.__dict__["_samples"]
    assert check(tiles).ok


def test_unreadable_image_is_named(tiles, tmp_path):
    (tmp_path / "good1.png").write_bytes((tmp_path / "good1.png").read_bytes()[:60])
    report = check(tiles)
    ((kind, message),) = problems(report)
    assert kind == "unreadable image" and "good1.png" in message and not report.ok
    assert "good1.png" in render(report)


def test_mask_of_another_size_is_named(tiles, tmp_path):
    Image.new("L", (6, 9), 255).save(tmp_path / "bad_mask.png")
    ((kind, message),) = problems(check(tiles))
    assert kind == "wrong mask" and "bad_mask.png is 9 pixels high and 6 wide" in message


def test_empty_mask_is_a_note_with_the_remedy(tiles, tmp_path):
    Image.new("L", (9, 6)).save(tmp_path / "bad_mask.png")
    report = check(tiles)
    (finding,) = report.findings
    assert report.ok and (finding.kind, finding.files) == ("empty mask", ("bad.png",))
    assert "tiles: one anomalous image, bad.png, with an empty mask." in finding.message
    assert "draw the mask, or correct the label" in finding.message and "see the notes" in render(report)


def test_mask_of_class_indices_under_gt127_is_a_problem(tiles, tmp_path):
    Image.new("L", (9, 6), 3).save(tmp_path / "bad_mask.png")
    ((kind, message),) = problems(check(tiles))
    assert kind == "wrong mask" and "values up to 3" in message


def test_grey_mask_values_are_a_note(tiles, tmp_path):
    mask = np.zeros((6, 9), np.uint8)
    mask[0, :4] = (255, 255, 90, 200)
    Image.fromarray(mask).save(tmp_path / "bad_mask.png")
    report = check(tiles)
    (finding,) = report.findings
    assert report.ok and finding.kind == "unexpected mask values"
    assert "66.7%" in finding.message  # two grey pixels, three above 127


def test_jpeg_mask_under_gt0_is_a_note(tiles, tmp_path):
    tiles.card = replace(tiles.card, mask_rule="gt0")
    mask = np.zeros((6, 9), np.uint8)
    mask[:2] = 255
    Image.fromarray(mask).save(tmp_path / "bad_mask.png", format="JPEG", quality=100)
    kinds = [finding.kind for finding in check(tiles).findings]
    assert kinds == [".png files that hold JPEG", "unexpected mask values"]


def test_suffix_that_lies_is_a_note(tiles, tmp_path):
    Image.new("RGB", (9, 6), (1, 2, 3)).save(tmp_path / "good1.png", format="BMP")
    report = check(tiles)
    assert report.ok and [finding.kind for finding in report.findings] == [".png files that hold BMP"]
    assert "### Notes\n- .png files that hold BMP: " in render(report)


def test_identical_images_are_a_note_within_a_label_and_a_problem_across_labels(tiles, tmp_path):
    shutil.copy(tmp_path / "good1.png", tmp_path / "good2.png")
    report = check(tiles)
    assert report.ok and [finding.message for finding in report.findings] == ["good1.png = good2.png."]
    shutil.copy(tmp_path / "bad.png", tmp_path / "good2.png")
    assert problems(check(tiles)) == [("identical images with different labels", "bad.png = good2.png.")]


def test_broken_layout_is_a_finding_not_an_error(tmp_path):
    report = check(Tiles(tmp_path / "nowhere", "default", "tiles"))
    assert not report.ok
    (tmp_path / "bottle/test/crack").mkdir(parents=True)
    Image.new("L", (4, 4)).save(tmp_path / "bottle/test/crack/0.png")
    report = check(datasets.create(f"mvtec={tmp_path}"))
    assert [finding.kind for finding in report.findings] == ["layout"] and "its masks are not there" in render(report)


def test_leather_is_incomplete_and_the_test_split_of_transistor_complete():
    folder = Path(__file__).resolve().parents[3] / "shared" / "data"
    if not (folder / "mvtec").is_dir():
        pytest.skip(f"real images are not there: {folder / 'mvtec'}")
    report = check(datasets.create("mvtec", folder))
    rows = {line.split("|")[1].strip(): line for line in render(report).splitlines() if line.startswith("|")}
    assert not report.ok and report.findings == ()
    assert "4 of 32" in rows["leather"] and "11 of 92" in rows["leather"] and "test incomplete" in rows["leather"]
    assert "test complete" in rows["transistor"] and "2 of 213" in rows["transistor"]
    assert "absent" in rows["bottle"]


def test_contract_accepts_a_sound_adapter(tiles):
    check_dataset(tiles)


def changed(**changes):
    def scan(self):
        for sample in Tiles.scan(self):
            yield replace(sample, **changes) if sample.label == 1 else sample

    return scan


def repeated(self):
    yield from Tiles.scan(self)
    yield from Tiles.scan(self)


def decoding(self):
    for sample in Tiles.scan(self):
        with Image.open(sample.image) as image:
            assert image.size
        yield sample


@pytest.mark.parametrize(
    ("scan", "message"),
    [
        (changed(mask=None), "has no mask although the card says pixel_level"),
        (changed(mask=Path("gone.png")), "has a mask that does not exist"),
        (changed(image=Path("/gone.png")), "lies outside the root"),
        (changed(label=2), "has label 2"),
        (changed(label=0), "is normal, but has the defect 'crack'"),
        (repeated, "more than once"),
        (decoding, "opens images while it scans"),
    ],
)
def test_contract_names_the_broken_rule(tiles, monkeypatch, scan, message):
    broken = type("Broken", (Tiles,), {"scan": scan})(tiles.root, "default", "tiles")
    with pytest.raises(AssertionError, match=message):
        check_dataset(broken)


def test_contract_refuses_a_scan_that_changes(tiles):
    calls = []

    def scan(self):
        calls.append(1)
        return list(Tiles.scan(self))[: 3 + len(calls) % 2]

    unstable = type("Unstable", (Tiles,), {"scan": scan})(tiles.root, "default", "tiles")
    with pytest.raises(AssertionError, match="a second scan gives other samples"):
        check_dataset(unstable)


def test_contract_allows_masks_to_be_read_for_labels(tiles):
    def scan(self):
        with Image.open(self.root / "bad_mask.png") as mask:
            assert mask.getextrema()[1]
        yield from Tiles.scan(self)

    check_dataset(type("Reading", (Tiles,), {"scan": scan})(tiles.root, "default", "tiles"))


def test_copied_folders_are_told_as_such_and_lone_copies_as_images(tmp_path):
    """As in the real KolektorSDD: kos26 = kos01, kos34 = kos27, and Part7 = Part6 inside kos21."""
    rng = np.random.default_rng(0)
    for item in ("kos01", "kos21", "kos27"):
        (tmp_path / item).mkdir()
        for part in range(3):
            Image.fromarray(rng.integers(0, 256, (6, 9), dtype=np.uint8)).save(tmp_path / item / f"Part{part}.jpg")
            Image.new("L", (9, 6)).save(tmp_path / item / f"Part{part}_label.bmp")
    shutil.copytree(tmp_path / "kos01", tmp_path / "kos26")
    shutil.copytree(tmp_path / "kos27", tmp_path / "kos34")
    shutil.copy(tmp_path / "kos21/Part1.jpg", tmp_path / "kos21/Part2.jpg")
    found = [
        (f.kind, f.message, f.wrong)
        for f in check(datasets.create(f"ksdd={tmp_path}")).findings
        if "cop" in f.kind or "ident" in f.kind
    ]
    assert found == [
        ("copied folders", "kos01 = kos26, 3 images each.", False),
        ("copied folders", "kos27 = kos34, 3 images each.", False),
        ("identical images", "kos21/Part1.jpg = kos21/Part2.jpg.", False),
    ]
