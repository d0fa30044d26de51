"""A small model, its encoder and its images, shared by the tests of encoders."""

from __future__ import annotations

import pytest
import torch
from toy_clip import make

from zsadbench.encoders import open_clip as clip_layout


@pytest.fixture(scope="module")
def pair():
    model, config = make()
    return model, clip_layout.from_config(config, model.state_dict(), spec="test")


@pytest.fixture(scope="module")
def images():
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
