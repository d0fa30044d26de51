"""Image scores of class token and map peak, on values worked out by hand."""

import pytest
import torch

from zsadbench.components.image_scores import fuse, minmax


def test_a_constant_map_scales_to_zero():
    assert minmax(torch.full((1, 2, 2), 0.7), dim=(-2, -1)).tolist() == [[[0, 0], [0, 0]]]
    assert minmax(torch.tensor([0.3, 0.3])).tolist() == [0, 0]


def test_each_map_is_scaled_on_its_own():
    maps = torch.tensor([[[0.0, 1.0], [2.0, 4.0]], [[5.0, 5.0], [7.0, 6.0]]])
    assert minmax(maps, dim=(-2, -1)).tolist() == [[[0, 0.25], [0.5, 1]], [[0, 0], [1, 0.5]]]


def test_image_scores_add_the_class_token_and_the_map_scaled_over_the_category():
    abnormal, peak = torch.tensor([0.2, 0.4, 0.6]), torch.tensor([3.0, 1.0, 2.0])
    assert fuse(abnormal, peak, "minmax_sum").tolist() == pytest.approx([1, 0.5, 1.5])
    assert fuse(abnormal, peak, "sum").tolist() == pytest.approx([3.2, 1.4, 2.6])
    assert torch.equal(fuse(abnormal, peak, "class_token"), abnormal)
