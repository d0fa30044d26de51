"""Native binarisation and the four resize rules, against slow references."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from zsadbench.data.masks import raw_mask, read_mask, resize_mask
from zsadbench.datasets import Sample
from zsadbench.errors import DataError


def anomalous(*masks):
    return Sample("image.png", masks[0] if len(masks) == 1 else tuple(masks) or None, 1, "tile", "crack")


def save(path, values, mode=None, palette=None):
    image = Image.fromarray(values)
    if palette is not None:
        image = Image.frombytes("P", image.size, image.tobytes())
        image.putpalette(palette)
    (image.convert(mode) if mode else image).save(path)
    return path


def read(path, rule, size=None):
    return read_mask(anomalous(path), rule, size or raw_mask(path, rule).shape).tolist()


def test_mask_of_normal_image_has_image_height_and_width():
    mask = read_mask(Sample("a.png", None, 0, "tile"), "gt127", (3, 7))
    assert mask.shape == (3, 7) and mask.dtype == bool and not mask.any()


def test_gt127_and_gt0_differ_between_1_and_127(tmp_path):
    path = save(tmp_path / "m.png", np.array([[0, 1, 127, 128, 255]], np.uint8))
    assert read(path, "gt127") == [[False, False, False, True, True]]
    assert read(path, "gt0") == [[False, True, True, True, True]]


def test_class_indices_count_as_defect_under_gt0_and_index_gt0(tmp_path):
    path = save(tmp_path / "m.png", np.array([[0, 1, 3]], np.uint8))
    for rule in ("gt0", "index_gt0"):
        assert read(path, rule) == [[False, True, True]]


def test_class_indices_under_gt127_are_refused_instead_of_empty(tmp_path):
    path = save(tmp_path / "m.png", np.array([[0, 1, 3]], np.uint8))
    with pytest.raises(DataError, match=r"m\.png has values up to 3, all background"):
        read(path, "gt127")


def test_palette_indices_count_even_when_their_colours_are_black(tmp_path):
    path = save(tmp_path / "m.png", np.array([[0, 1, 2]], np.uint8), palette=[0, 0, 0] * 3)
    for rule in ("gt0", "index_gt0"):
        assert read(path, rule) == [[False, True, True]]


def test_gt127_of_a_palette_image_reads_its_brightness(tmp_path):
    path = save(tmp_path / "m.png", np.array([[0, 1, 2]], np.uint8), palette=[0, 0, 0, 255, 255, 255, 200, 0, 0])
    assert read(path, "gt127") == [[False, True, True]]


def test_brightest_channel_counts(tmp_path):
    path = save(tmp_path / "m.png", np.array([[[0, 0, 0], [255, 0, 0], [0, 0, 90]]], np.uint8))
    assert read(path, "gt127") == [[False, True, False]]
    assert read(path, "gt0") == [[False, True, True]]


@pytest.mark.parametrize("channels", [2, 4])
def test_alpha_of_a_mask_is_ignored(tmp_path, channels):
    values = np.zeros((1, 2, channels), np.uint8)
    values[..., -1] = 255
    values[0, 1, 0] = 255
    assert read(save(tmp_path / "m.png", values), "gt0") == [[False, True]]


def test_index_gt0_refuses_colours(tmp_path):
    path = save(tmp_path / "m.png", np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(DataError, match="3 channels; expected one"):
        read(path, "index_gt0")


def test_one_bit_and_sixteen_bit_masks(tmp_path):
    bits = save(tmp_path / "bits.png", np.array([[0, 255]], np.uint8), mode="1")
    deep = save(tmp_path / "deep.png", np.array([[0, 300, 32639, 32640, 65535]], np.uint16))
    assert read(bits, "gt127") == [[False, True]]
    assert read(deep, "gt127") == [[False, False, False, True, True]]
    assert read(deep, "gt0") == [[False, True, True, True, True]]


def test_several_masks_are_united(tmp_path):
    one = save(tmp_path / "1.png", np.array([[255, 0, 0]], np.uint8))
    two = save(tmp_path / "2.png", np.array([[0, 0, 255]], np.uint8))
    assert read_mask(anomalous(one, two), "gt127", (1, 3)).tolist() == [[True, False, True]]


def test_mask_of_another_size_tells_both_sizes(tmp_path):
    path = save(tmp_path / "m.png", np.zeros((4, 6), np.uint8))
    with pytest.raises(DataError, match=r"m\.png is 4 pixels high and 6 wide.*is 6 high and 4 wide"):
        read(path, "gt127", (6, 4))


def test_anomalous_image_without_a_mask_is_an_error():
    with pytest.raises(DataError, match=r"image\.png is anomalous, but has no mask"):
        read_mask(anomalous(), "gt127", (4, 6))


def test_missing_mask_file_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"gone\.png does not exist"):
        read(tmp_path / "gone.png", "gt127", (4, 6))


def test_floating_point_mask_is_an_error(tmp_path):
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "m.tif")
    with pytest.raises(DataError, match="mode F"):
        read(tmp_path / "m.tif", "gt127", (4, 4))


def test_normal_image_may_have_an_empty_mask_but_no_other(tmp_path):
    empty = save(tmp_path / "empty.png", np.zeros((2, 3), np.uint8))
    marked = save(tmp_path / "marked.png", np.full((2, 3), 255, np.uint8))
    assert not read_mask(Sample("a.png", empty, 0, "tile"), "gt127", (2, 3)).any()
    with pytest.raises(DataError, match=r"labelled normal, but its mask .* marks 6 pixels"):
        read_mask(Sample("a.png", marked, 0, "tile"), "gt127", (2, 3))


def triangle_resize(mask, size):
    """PIL's antialiased bilinear filter as two dense matrices in float64; an independent reference."""

    def weights(length):
        scale = length / size
        support = max(scale, 1.0)
        centres = (np.arange(size) + 0.5) * scale
        distance = np.abs(centres[:, None] - (np.arange(length) + 0.5)[None]) / support
        rows = np.clip(1 - distance, 0, None)
        return rows / rows.sum(axis=1, keepdims=True)

    height, width = mask.shape
    return weights(height) @ (mask * 255.0) @ weights(width).T


ANY_MASK = arrays.arrays(bool, st.tuples(st.integers(1, 24), st.integers(1, 24)))


@given(mask=ANY_MASK, size=st.integers(1, 20))
def test_bilinear_rules_agree_with_a_dense_reference(mask, size):
    values = triangle_resize(mask, size)
    half, erode, dilate = (resize_mask(mask, size, rule) for rule in ("bilinear_half", "musc_mvtec", "musc_visa"))
    assert half.shape == (size, size) and half.dtype == bool
    clear = np.abs(values - 127.5) > 2  # PIL rounds to 8 bits in each of its two passes
    assert np.array_equal(half[clear], values[clear] > 127.5)
    assert not erode[values < 252].any() and erode[values == 255].all()
    assert not dilate[values == 0].any() and dilate[values > 2].all()
    assert not (erode & ~half).any() and not (half & ~dilate).any()


@given(mask=ANY_MASK, rule=st.sampled_from(["bilinear_half", "nearest", "musc_mvtec", "musc_visa"]))
def test_square_mask_at_its_own_size_is_unchanged(mask, rule):
    square = mask[: min(mask.shape), : min(mask.shape)]
    assert np.array_equal(resize_mask(square, len(square), rule), square)


def test_bilinear_half_keeps_rows_and_columns_apart_on_non_square_masks():
    mask = np.zeros((4, 8), bool)
    mask[:2] = True
    expected = np.zeros((4, 4), bool)
    expected[:2] = True
    assert np.array_equal(resize_mask(mask, 4, "bilinear_half"), expected)


def test_nearest_takes_the_pixel_under_the_centre():
    mask = np.arange(36).reshape(6, 6) % 7 == 0
    assert np.array_equal(resize_mask(mask, 2, "nearest"), mask[1::3, 1::3])


def test_bilinear_half_equals_the_published_rule_with_torchvision():
    from torchvision import transforms

    mask = np.random.default_rng(0).random((33, 70)) > 0.7
    image = Image.fromarray(mask.astype(np.uint8) * 255)
    reference = transforms.ToTensor()(image.resize((24, 24), Image.Resampling.BILINEAR))[0]
    assert np.array_equal(resize_mask(mask, 24, "bilinear_half"), (reference > 0.5).numpy())
    assert np.array_equal(resize_mask(mask, 24, "musc_mvtec"), reference.numpy().astype(np.int32) == 1)
    assert np.array_equal(resize_mask(mask, 24, "musc_visa"), (reference > 0).numpy())
