"""The floor method."""

from __future__ import annotations

import torch

from zsadbench import methods
from zsadbench.datasets import Category
from zsadbench.running.loading import from_tensor
from zsadbench.testing import check_method


def test_constant_keeps_the_contract() -> None:
    check_method("constant")


def test_every_image_and_pixel_gets_the_same_value() -> None:
    batch = from_tensor(torch.rand(3, 3, 224, 224), Category("screw", "screw", "toy"))
    scores, maps = methods.create("constant").predict(batch)
    assert scores.tolist() == [0, 0, 0]
    assert maps.shape[0] == 3
    assert maps.unique().tolist() == [0]
