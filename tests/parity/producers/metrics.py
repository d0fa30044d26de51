"""The exact pixel and image metrics of every case; an undefined metric is NaN in the fixture.

Without normal images AP is 1 by its definition; the fixture follows tables: n/a (docs/metrics.md#degenerate-cases).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zsadbench.metrics.measure import image_metrics
from zsadbench.metrics.pixels import PixelCounts

if TYPE_CHECKING:
    from produce import Fixture


def produce(fixture: Fixture) -> dict[str, Tensor]:
    """Return values, image values and region counts of every case (the fixture's notes say in which order)."""
    fixture.expect(connectivity=8)
    fixture.describes("aupro")
    outputs = {}
    for case in fixture.options["cases"]:
        maps, masks = fixture.inputs[f"{case}.map"].numpy(), fixture.inputs[f"{case}.mask"].numpy()
        results = []
        for limit in fixture.options["aupro_limits"]:
            counts = PixelCounts(aupro_limit=limit)
            counts.update(maps, masks)
            results.append(counts.compute())
            regions = counts.facts()["regions"]
        pixel = [results[0][name] for name in ("auroc", "ap", "f1_max")] + [result["aupro"] for result in results]
        labels = masks.any(axis=(1, 2))
        image = image_metrics(maps.max(axis=(1, 2)), labels)
        outputs[f"{case}.values"] = _float64(pixel)
        outputs[f"{case}.image_values"] = _float64([image["auroc"], image["ap"] if not labels.all() else None])
        outputs[f"{case}.regions"] = torch.tensor([regions])
    return outputs


def _float64(values: list[float | None]) -> Tensor:
    return torch.tensor([math.nan if value is None else value for value in values], dtype=torch.float64)
