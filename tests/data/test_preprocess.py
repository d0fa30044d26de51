"""Decoding by content, and preprocessing against torchvision."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from zsadbench.data.images import IMAGENET_MEAN, IMAGENET_STD, Preprocess, apply, decode_image, open_image, read_header
from zsadbench.errors import DataError


def noise(height, width, channels=3, seed=0):
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(path, array, mode=None, **options):
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def test_rgb_image_keeps_height_width_and_values(tmp_path):
    array = noise(5, 9)
    decoded = decode_image(save(tmp_path / "a.png", array))
    assert decoded.shape == (5, 9, 3) and decoded.dtype == np.uint8
    assert np.array_equal(decoded, array)


def test_png_bytes_under_a_jpg_name_decode_as_png(tmp_path):
    array = noise(4, 6)
    path = save(tmp_path / "no 98.jpg", array, format="PNG")
    assert np.array_equal(decode_image(path), array)
    assert read_header(path) == (4, 6, "PNG", 1)


def test_grey_image_becomes_three_equal_channels(tmp_path):
    array = noise(4, 6, channels=1)
    assert np.array_equal(decode_image(save(tmp_path / "a.png", array)), np.stack([array] * 3, axis=2))


def test_palette_image_shows_its_colours(tmp_path):
    image = Image.frombytes("P", (3, 1), bytes([0, 1, 2]))
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.save(tmp_path / "a.png")
    assert decode_image(tmp_path / "a.png").tolist() == [[[10, 20, 30], [40, 50, 60], [70, 80, 90]]]


@pytest.mark.filterwarnings("error")
def test_palette_transparency_is_dropped_without_a_warning(tmp_path):
    image = Image.frombytes("P", (2, 1), bytes([0, 1]))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.save(tmp_path / "a.png", transparency=bytes([0, 128]))
    assert decode_image(tmp_path / "a.png").tolist() == [[[10, 20, 30], [40, 50, 60]]]


@pytest.mark.parametrize("channels", [2, 4])
def test_alpha_is_dropped_and_colours_stay(tmp_path, channels):
    array = noise(4, 6, channels)
    array[..., -1] = 0  # fully transparent: compositing would lose the colours
    decoded = decode_image(save(tmp_path / "a.png", array))
    assert np.array_equal(decoded, np.broadcast_to(array[..., :-1], (4, 6, 3)))


def test_one_bit_image_is_black_and_white(tmp_path):
    Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1").save(tmp_path / "a.png")
    assert decode_image(tmp_path / "a.png").tolist() == [[[0, 0, 0], [255, 255, 255]]]


def test_cmyk_jpeg_is_converted(tmp_path):
    Image.new("CMYK", (6, 4), (0, 0, 0, 0)).save(tmp_path / "a.jpg")
    assert decode_image(tmp_path / "a.jpg").min() > 250


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path, suffix):
    array = np.array([[0, 255, 256, 32768, 65535]], np.uint16)
    Image.fromarray(array).save(tmp_path / f"a.{suffix}")
    assert decode_image(tmp_path / f"a.{suffix}")[0, :, 0].tolist() == [0, 0, 1, 128, 255]


def test_exif_orientation_is_not_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    save(tmp_path / "a.jpg", noise(8, 16), exif=exif)
    assert decode_image(tmp_path / "a.jpg").shape == (8, 16, 3)


def test_first_frame_of_an_animation_counts(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ((255, 0, 0), (0, 255, 0))]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    assert decode_image(tmp_path / "a.png")[0, 0].tolist() == [255, 0, 0]


def test_truncated_image_names_the_file(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(noise(64, 64)).save(buffer, "PNG")
    (tmp_path / "cut.png").write_bytes(buffer.getvalue()[:2000])
    with pytest.raises(DataError, match=r"cut\.png cannot be decoded, it may be truncated"):
        decode_image(tmp_path / "cut.png")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "empty"),
        (b"hello world", "starts with b'hello wo'"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS pointer"),
        (b"<!DOCTYPE html>", "web page"),
    ],
)
def test_file_that_is_no_image_says_what_it_is(tmp_path, content, expected):
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(DataError, match=r"bad\.png is not an image") as raised:
        decode_image(tmp_path / "bad.png")
    assert expected in str(raised.value)


def test_missing_file_and_folder_are_data_errors(tmp_path):
    with pytest.raises(DataError, match=r"gone\.png does not exist"):
        decode_image(tmp_path / "gone.png")
    with pytest.raises(DataError, match="cannot be decoded"):
        decode_image(tmp_path)


@pytest.mark.parametrize("limit", [100, 150])  # PIL raises above twice its limit and only warns below
@pytest.mark.filterwarnings("error")
def test_decompression_bomb_is_refused(tmp_path, monkeypatch, limit):
    save(tmp_path / "huge.png", noise(16, 16))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(DataError, match=r"huge\.png is too large"):
        decode_image(tmp_path / "huge.png")


def test_floating_point_image_is_refused(tmp_path):
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match="floating-point"):
        decode_image(tmp_path / "a.tif")


def test_open_image_keeps_the_mode(tmp_path):
    assert open_image(save(tmp_path / "a.png", noise(3, 3, channels=1))).mode == "L"


@pytest.mark.parametrize("resize", ["squash", "shortest"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("shape", [(50, 81), (97, 40), (24, 24), (11, 13)])
def test_apply_equals_torchvision(resize, interpolation, shape):
    side = 24
    image = noise(*shape)
    filter_mode = InterpolationMode(interpolation)
    reference = transforms.Compose(
        [
            transforms.Resize((side, side) if resize == "squash" else side, filter_mode),
            transforms.CenterCrop(side),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    before = image.copy()
    got = apply(Preprocess(side, resize, interpolation, IMAGENET_MEAN, IMAGENET_STD), image)
    assert got.shape == (3, side, side) and got.dtype == torch.float32 and got.is_contiguous()
    assert torch.equal(got, reference(Image.fromarray(image)))
    assert np.array_equal(image, before)


def test_squash_and_shortest_differ_on_non_square_images():
    image = noise(50, 81)
    assert not torch.equal(apply(Preprocess(24), image), apply(Preprocess(24, "shortest"), image))
