"""Resizing and smoothing of maps, against scipy and hand-computed values."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from zsadbench import methods
from zsadbench.components.postprocess import finish, gaussian_operator, resize_maps, smooth


def random_maps(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.floats(0.1, 12))
def test_smoothing_equals_scipy_for_any_shape_and_sigma(height: int, width: int, sigma: float) -> None:
    maps = random_maps(2, height, width)
    expected = [gaussian_filter(one.numpy(), sigma, truncate=4, mode="reflect") for one in maps]
    np.testing.assert_allclose(smooth(maps, sigma).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("sigma", [2, 4, 8])
def test_smoothing_equals_scipy_at_the_input_size_of_the_papers(sigma: float) -> None:
    maps = 4 * random_maps(1, 518, 518)
    expected = gaussian_filter(maps[0].numpy(), sigma, truncate=4, mode="reflect")
    np.testing.assert_allclose(smooth(maps, sigma)[0].numpy(), expected, atol=1e-5)


def test_smoothing_with_sigma_zero_changes_nothing() -> None:
    maps = random_maps(1, 5, 5)
    assert torch.equal(smooth(maps, 0), maps)


def test_smoothing_under_inference_mode_leaves_an_operator_that_autograd_may_use() -> None:
    gaussian_operator.cache_clear()
    with torch.inference_mode():
        smooth(random_maps(1, 6, 6), 1.5)
    maps = random_maps(1, 6, 6).requires_grad_()
    smooth(maps, 1.5).sum().backward()
    np.testing.assert_allclose(maps.grad.numpy(), 1, atol=1e-5)  # reflection loses no mass


def test_resizing_with_aligned_corners_keeps_the_corners() -> None:
    maps = torch.tensor([[[0.0, 1.0], [2.0, 3.0]]])
    expected = torch.tensor([[[0.0, 0.5, 1.0], [1.0, 1.5, 2.0], [2.0, 2.5, 3.0]]])
    torch.testing.assert_close(resize_maps(maps, (3, 3), align_corners=True), expected)


def test_resizing_without_aligned_corners_treats_values_as_pixel_areas() -> None:
    maps = torch.tensor([[[0.0, 4.0]]])
    torch.testing.assert_close(resize_maps(maps, (1, 4), align_corners=False), torch.tensor([[[0.0, 1.0, 3.0, 4.0]]]))


def test_resized_maps_have_image_height_and_width() -> None:
    assert resize_maps(random_maps(3, 4, 4), (7, 9), align_corners=False).shape == (3, 7, 9)
    assert resize_maps(random_maps(3, 4, 4), 7, align_corners=True).shape == (3, 7, 7)


def test_resizing_to_the_same_size_returns_the_maps() -> None:
    maps = random_maps(2, 4, 5)
    assert resize_maps(maps, (4, 5), align_corners=True) is maps


@pytest.mark.parametrize("align_corners", [True, False])
def test_finishing_upsamples_first_and_then_smooths_in_evaluation_pixels(align_corners: bool) -> None:
    method = methods.create("constant")
    method.align_corners, method.sigma = align_corners, 2.0
    maps = random_maps(1, 6, 6)
    upsampled = resize_maps(maps, (30, 24), align_corners)
    expected = gaussian_filter(upsampled[0].numpy(), 2.0, truncate=4, mode="reflect")
    np.testing.assert_allclose(finish(maps, method, (30, 24))[0].numpy(), expected, atol=1e-5)
