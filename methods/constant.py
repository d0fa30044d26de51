"""The floor of every table: the same score for every image and the same value for every pixel.

No paper. It shows what a metric gives to a method that knows nothing: AUROC 0.5, AP and F1-max of a random guess.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from zsadbench.data.images import Preprocess
from zsadbench.encoders.base import Encoder
from zsadbench.methods import Batch, Method, MethodCard, Prediction, register


@dataclass(frozen=True)
class ConstantConfig:
    """No options."""


@register
class Constant(Method):
    """Predict 0 everywhere."""

    card = MethodCard(title="Constant", reference="none: the floor of the metrics", scope="image")
    presets = {"default": ConstantConfig()}

    preprocess = Preprocess(size=224)

    def __init__(self, config: ConstantConfig, encoder: Encoder | None = None) -> None:
        """Needs no encoder."""
        super().__init__(config, encoder)

    def predict(self, batch: Batch) -> Prediction:
        """Score B images with 0, without looking at them."""
        return Prediction(torch.zeros(len(batch)), torch.zeros(len(batch), 1, 1))
