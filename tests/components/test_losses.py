"""Focal and Dice losses against values worked out by hand."""

import math

import pytest
import torch

from zsadbench.components.losses import dice, focal


def test_dice_of_a_perfect_map_is_zero_and_of_an_empty_one_nearly_one():
    masks = torch.zeros(2, 4, 4)
    masks[:, :2] = 1
    assert dice(masks, masks).item() == pytest.approx(0)
    assert dice(torch.zeros(2, 4, 4), masks).item() == pytest.approx(1 - 1 / 9)


def test_dice_is_a_mean_over_images_and_not_over_the_batchs_pixels():
    masks = torch.zeros(2, 2, 2)
    masks[0] = 1
    maps = torch.zeros(2, 2, 2)
    maps[0] = 0.5
    assert dice(maps, masks).item() == pytest.approx(((1 - 5 / 7) + 0) / 2)


def test_focal_of_one_pixel_is_the_formula():
    probabilities = torch.tensor([0.3, 0.7])[None, :, None, None]
    agreement = 0.3 * 1e-5 + 0.7 * (1 - 1e-5) + 1e-5
    expected = -((1 - agreement) ** 2) * math.log(agreement)
    assert focal(probabilities, torch.ones(1, 1, 1)).item() == pytest.approx(expected, rel=1e-5)


def test_focal_falls_as_the_map_gets_better_and_has_gradients():
    masks = torch.ones(1, 2, 2)
    logits = torch.zeros(1, 2, 2, 2, requires_grad=True)
    focal(logits.softmax(1), masks).backward()
    assert (logits.grad[:, 1] < 0).all() and (logits.grad[:, 0] > 0).all()
