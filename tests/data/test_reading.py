"""How samples are read: EXIF orientations, ranges of 16-bit values, huge images, and what is odd about files."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product

import cv2
import numpy as np
import pytest
from commands import zsadbench
from PIL import Image, ImageOps
from scipy import ndimage

from zsadbench import datasets
from zsadbench.data import index_writer
from zsadbench.data.check import check
from zsadbench.data.images import read_header, read_picture, turn_upright
from zsadbench.data.masks import lost_regions, resize_mask
from zsadbench.data.reading import Oddity, Reader, add
from zsadbench.errors import DataError, UsageError


def photo(seed=0, height=6, width=9):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path, pixels, orientation=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    if orientation is not None:
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = orientation
    Image.fromarray(pixels).save(path, **options)
    return path


def marked(height=6, width=9):
    mask = np.zeros((height, width), np.uint8)
    mask[0, :3] = 255
    return mask


def reader_of(dataset):
    (category,) = dataset.categories()
    samples = dataset.samples(category.name)
    return Reader(dataset, samples), samples


@pytest.mark.parametrize(("orientation", "suffix"), [*product(range(1, 9), (".jpg", ".png", ".webp"))])
def test_pixels_are_turned_as_pil_turns_them(tmp_path, orientation, suffix):
    path = save(tmp_path / f"a{suffix}", photo(), orientation)
    picture = read_picture(path)
    assert picture.orientation == orientation and read_header(path).orientation == orientation
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    assert np.array_equal(turn_upright(picture.pixels, picture.orientation), expected)


def test_damaged_metadata_are_no_reason_to_refuse_pixels(tmp_path):
    save(tmp_path / "a.jpg", photo(), exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x09broken")
    assert read_picture(tmp_path / "a.jpg").orientation == 1


@pytest.fixture
def turned(tmp_path):
    """A function (mask size) that makes an own set: a normal and an anomalous photo, both stored on their side."""

    def make(*mask_size, name="part"):
        save(tmp_path / name / "test/good/0.jpg", photo(1), 6)
        save(tmp_path / name / "test/hole/0.jpg", photo(2), 6)
        if mask_size:
            save(tmp_path / name / "ground_truth/hole/0.png", marked(*mask_size))
        return datasets.create(f"folder={tmp_path / name}")

    return make


def test_photos_are_turned_upright_where_masks_agree_or_nothing_contradicts(turned):
    masked = turned(9, 6)
    for dataset in (masked, turned(name="without_masks")):
        reader, samples = reader_of(dataset)
        assert {reader.size(sample) for sample in samples} == {(9, 6)}
        assert {reader.image(sample).shape for sample in samples} == {(9, 6, 3)}
        assert reader.oddities(samples) == {"turned": Oddity(2, "test/good/0.jpg")}
    reader, samples = reader_of(masked)
    assert reader.mask(samples[1], "gt127").sum() == 3


def test_photos_whose_masks_fit_the_stored_pixels_are_not_turned_and_normal_ones_neither(turned):
    dataset = turned(6, 9)
    reader, samples = reader_of(dataset)
    assert {reader.image(sample).shape for sample in samples} == {(6, 9, 3)}
    assert reader.mask(samples[1], "gt127").shape == (6, 9)
    assert reader.oddities(samples) == {"not turned": Oddity(2, "test/good/0.jpg")}


def test_a_mask_that_fits_only_the_other_way_is_told_about_exif(turned, tmp_path):
    turned(9, 6)
    save(tmp_path / "part/test/hole/1.jpg", photo(3), 6)
    save(tmp_path / "part/ground_truth/hole/1.png", marked(6, 9))
    (finding,) = [f for f in check(datasets.create(f"folder={tmp_path / 'part'}")).findings if f.wrong]
    assert finding.kind == "wrong mask" and "EXIF orientation 6: turned by it, the sizes would agree" in finding.message


def test_published_sets_are_read_as_stored_and_the_error_names_exif(tmp_path):
    save(tmp_path / "mvtec/grid/test/good/0.jpg", photo(1), 6)
    save(tmp_path / "mvtec/grid/test/hole/0.jpg", photo(2), 6)
    save(tmp_path / "mvtec/grid/ground_truth/hole/0.png", marked(9, 6))
    reader, samples = reader_of(datasets.create("mvtec", tmp_path))
    assert reader.image(samples[0]).shape == (6, 9, 3)
    with pytest.raises(
        DataError, match=r"EXIF orientation 6: turned by it, the sizes would agree\. Save the image turned"
    ):
        reader.mask(samples[1], "gt127")


@pytest.fixture
def deep(tmp_path):
    """A function (shift) that makes an own set of 8-bit values in 16-bit files, shifted by that many bits."""

    def make(shift, options=""):
        for folder, top in (("good", 200), ("hole", 255)):
            pixels = np.arange(top + 1, dtype=np.uint16).reshape(-1, 1).repeat(2, 1) << shift
            save(tmp_path / f"s{shift}/test/{folder}/0.png", pixels)
        return datasets.create(f"folder{options}={tmp_path / f's{shift}'}")

    return make


def test_low_bits_of_16_are_told_with_the_option_that_mends_them(deep):
    (note,) = [finding for finding in check(deep(4)).findings if finding.kind == "dark 16 bits"]
    assert (
        "2 files, such as test/good/0.png, of 16 bits with values up to 4080 only, the lowest 12 bits" in note.message
    )
    assert "folder.range-0-4095=PATH" in note.message and not note.wrong
    assert not [finding for finding in check(deep(8)).findings if finding.kind == "dark 16 bits"]


def test_a_run_on_low_bits_ends_with_the_note(deep, tmp_path, toy_plugins):
    dataset = deep(4)
    arguments = ("--plugins", toy_plugins, "--methods", "good_mean", "--datasets", f"folder={dataset.root}", "-q")
    lines = zsadbench("run", *arguments, "--out", tmp_path / "out").stderr.splitlines()
    assert lines[-1].startswith("Note: folder.s4: 2 files, such as test/good/0.png, of 16 bits with values up to 4080")


def test_a_range_is_one_for_the_whole_set_and_equals_the_8_bit_file(deep):
    reader, samples = reader_of(deep(4, ".range-0-4095"))
    for sample, top in zip(samples, (200, 255), strict=True):
        assert reader.image(sample)[:, 0, 0].tolist() == list(range(top + 1))
    assert reader.oddities(samples) == {}
    reader, samples = reader_of(deep(4, ".range-1600-3199"))  # a window: 100 of the 8-bit values become 256
    assert reader.image(samples[0])[[0, 100, 150, 200], 0, 0].tolist() == [0, 0, 128, 255]
    assert reader.oddities(samples) == {"outside the range": Oddity(1, "test/good/0.png")}


def test_colours_of_16_bits_are_scaled_likewise(tmp_path):
    pixels = np.arange(3 * 4, dtype=np.uint16).reshape(1, 4, 3) * 300
    cv2.imwrite(str(tmp_path / "a.png"), pixels[:, :, ::-1])
    assert np.array_equal(read_picture(tmp_path / "a.png").pixels, pixels >> 8)
    assert read_picture(tmp_path / "a.png").deep == (0, 12 << 8 | 255), "PIL tells the upper bytes only"
    picture = read_picture(tmp_path / "a.png", values=(0, 4095))
    assert np.array_equal(picture.pixels, pixels >> 4) and picture.deep == (0, 3300)


def test_values_below_zero_need_a_range(tmp_path):
    Image.fromarray(np.array([[-1000, 400]], np.int32)).save(tmp_path / "ct.tif")
    with pytest.raises(DataError, match=r"-1000\.\.400; expected at most 16 bits.*folder\.range--1000-400=PATH"):
        read_picture(tmp_path / "ct.tif")
    assert read_picture(tmp_path / "ct.tif", values=(-1000, 400)).pixels[0, :, 0].tolist() == [0, 255]


@pytest.mark.parametrize("options", ["range-5-5", "range-9-0", "range-0-9.range-0-5"])
def test_ranges_that_are_none_are_refused(tmp_path, options):
    with pytest.raises(UsageError, match="expected one range, from a lower to a higher value"):
        datasets.create(f"folder.{options}={tmp_path}")


def test_a_range_travels_with_an_index(deep, tmp_path):
    original = deep(4, ".range-0-4095")
    index_writer.write(original, tmp_path / "index.jsonl")
    again = datasets.create(f"folder={tmp_path / 'index.jsonl'}", original.root)
    assert again.card.value_range == (0, 4095)
    reader, samples = reader_of(again)
    assert reader.image(samples[1])[-1, 0, 0] == 255


def test_huge_images_and_masks_are_read_on_demand_and_the_limit_stays(tmp_path, monkeypatch):
    save(tmp_path / "part/test/good/0.png", photo(1, 20, 20))
    save(tmp_path / "part/test/hole/0.png", photo(2, 20, 20))
    save(tmp_path / "part/ground_truth/hole/0.png", marked(20, 20))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    reader, samples = reader_of(datasets.create(f"folder={tmp_path / 'part'}"))
    with pytest.raises(DataError, match=r"too large .* folder\.huge=PATH"):
        reader.image(samples[0])
    reader, samples = reader_of(datasets.create(f"folder.huge={tmp_path / 'part'}"))
    assert reader.image(samples[0]).shape == (20, 20, 3) and reader.mask(samples[1], "gt127").sum() == 3
    assert Image.MAX_IMAGE_PIXELS == 100 and check(datasets.create(f"folder.huge={tmp_path / 'part'}")).ok


def test_a_part_that_leaves_the_image_is_refused(tmp_path):
    save(tmp_path / "a.png", photo())
    (tmp_path / "list.csv").write_text("image,label,crop,category\na.png,0,0-0-6-9,tile\na.png,1,0-0-7-9,tile\n")
    reader, samples = reader_of(datasets.create(f"folder={tmp_path / 'list.csv'}"))
    assert reader.image(samples[0]).shape == (6, 9, 3)
    with pytest.raises(DataError, match=r"a\.png#0-0-7-9 names a part that leaves the image, which is 6 pixels high"):
        reader.image(samples[1])


@pytest.fixture
def masked(tmp_path):
    """A function (*masks) that makes an own set of one normal image and an anomalous one for each mask."""

    def make(*masks):
        save(tmp_path / "part/test/good/0.png", photo(9))
        for i, mask in enumerate(masks):
            save(tmp_path / f"part/test/hole/{i}.png", photo(i))
            save(tmp_path / f"part/ground_truth/hole/{i}.png", mask)
        return datasets.create(f"folder={tmp_path / 'part'}")

    return make


def test_masks_that_mark_nothing_and_masks_that_mark_what_is_normal_are_told(masked):
    reader, samples = reader_of(masked(255 - marked(), marked() * 0, 255 - marked()))
    for sample in samples:
        reader.mask(sample, "gt127")
    assert reader.oddities(samples) == {
        "empty mask": Oddity(1, "test/hole/1.png"),
        "wide masks": Oddity(2, "test/hole/0.png", 51 / 54),
    }
    assert reader.oddities(samples[:1]) == {}, "asked for the normal image alone"


def test_a_mask_that_lies_in_the_alpha_channel_is_told(masked):
    alpha = np.zeros((6, 9, 4), np.uint8)
    alpha[..., 3] = marked()
    odd = {finding.kind: finding for finding in check(masked(alpha)).findings}
    assert "save that channel as a grey image" in odd["mask in alpha"].message and "empty mask" in odd
    opaque = np.dstack([marked()] * 3 + [np.full((6, 9), 255, np.uint8)])
    assert [finding.kind for finding in check(masked(opaque)).findings] == []


def test_oddities_of_categories_are_added():
    a, b = {"turned": Oddity(2, "b/1.png"), "wide masks": Oddity(1, "b/1.png", 0.6)}, {"turned": Oddity(1, "a/1.png")}
    assert add([a, b]) == {"turned": Oddity(3, "a/1.png"), "wide masks": Oddity(1, "b/1.png", 0.6)}
    assert add([]) == {}


@pytest.mark.parametrize("rule", ["bilinear_half", "nearest", "musc_mvtec", "musc_visa"])
def test_regions_without_a_pixel_are_counted_as_one_would_by_hand(rule):
    rng = np.random.default_rng(0)
    for side in (8, 17):
        native = rng.random((60, 90)) < 0.002
        native |= ndimage.binary_dilation(rng.random((60, 90)) < 0.001, iterations=8)
        resized = resize_mask(native, side, rule)
        labels, number = ndimage.label(native, np.ones((3, 3)))
        lost = 0
        for region in range(1, number + 1):
            places = {(row * side // 60, column * side // 90) for row, column in np.argwhere(labels == region)}
            lost += not any(resized[place] for place in places)
        assert lost_regions(native, resized) == (lost, number)
        assert 0 < lost < number or rule.startswith("musc"), "the example has both"


def test_nothing_is_lost_at_native_size_nor_from_an_empty_mask():
    assert lost_regions(marked() > 0, marked() > 0) == (0, 1)
    assert lost_regions(marked() > 127, np.ones((2, 2), bool)) == (0, 1)
    assert lost_regions(np.zeros((4, 4), bool), np.zeros((2, 2), bool)) == (0, 0)


def test_run_ends_with_the_notes_and_record_and_table_keep_them(tmp_path, toy_plugins):
    part = tmp_path / "part"
    for i in range(2):
        save(part / f"test/good/{i}.jpg", photo(i, 64, 96), 6)
        save(part / f"test/hole/{i}.jpg", photo(i + 2, 64, 96), 6)
        mask = np.zeros((96, 64), np.uint8)
        mask[10:40, 10:40], mask[80, 50] = 255 * i, 255 * i  # the first mask is empty
        save(part / f"ground_truth/hole/{i}.png", mask)
    arguments = ("--plugins", toy_plugins, "--methods", "good_mean,good_pair", "--datasets", f"folder={part}")
    done = zsadbench("run", *arguments, "--out", tmp_path / "out", "-q")
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("Note: folder.part")]
    assert len(said) == 3, "once, however many methods there are"
    told = "\n".join(said)
    assert "folder.part: one anomalous image, test/hole/0.jpg, with an empty mask." in told
    assert "folder.part: 4 images, such as test/good/0.jpg, turned upright as EXIF says." in told
    assert "folder.part: 1 of 2 defect regions have no pixel at the evaluation size" in told
    details = json.loads((tmp_path / "out/folder.part/good_mean/part.json").read_text())["details"]
    assert details["odd"] == {
        "empty mask": {"count": 1, "first": "test/hole/0.jpg", "value": 0.0},
        "turned": {"count": 4, "first": "test/good/0.jpg", "value": 0.0},
    }
    assert (details["pixel"]["lost_regions"], details["pixel"]["native_regions"]) == (1, 2)
    table = zsadbench("table", tmp_path / "out").stdout
    assert all(f"- {line.removeprefix('Note: ')}" in table for line in said)


def test_how_pixels_are_read_is_part_of_a_cells_identity(masked, tmp_path, toy_plugins):
    dataset = masked(marked())
    for i, rule in enumerate(("gt127", "gt0")):
        path = tmp_path / "lists" / "index.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        dataset.card = replace(dataset.card, mask_rule=rule)
        index_writer.write(dataset, path)
        arguments = ("--plugins", toy_plugins, "--methods", "good_mean", "--datasets", f"folder={path}", "-q")
        done = zsadbench("run", *arguments, "--data-root", dataset.root, "--out", tmp_path / "out")
        assert "1 cell to run" in done.stderr, f"run {i}: {done.stderr}"
    assert "were read with mask_rule gt127, value_range None, exif True, now with mask_rule gt0" in done.stderr
