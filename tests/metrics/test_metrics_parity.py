"""The 13 cases of the metrics fixture, computed by exhaustive enumeration, through the public functions."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load

from zsadbench.metrics.measure import image_metrics
from zsadbench.metrics.pixels import PixelCounts

FIXTURE = Path(__file__).resolve().parents[3] / "shared" / "parity" / "metrics_s.zip"
CASES = (
    "continuous ties_8_levels constant perfect inverted single_pixel_regions diagonal_8_connectivity "
    "large_and_tiny_regions two_levels wide_range_logits outlier_pixel first_positive_beyond_fpr_limit "
    "ties_across_classes"
).split()


@pytest.fixture(scope="module")
def fixture():
    if not FIXTURE.exists():
        pytest.skip(f"{FIXTURE} is not here: the shared parity fixtures lie beside the project")
    with zipfile.ZipFile(FIXTURE) as archive:
        spec = json.loads(archive.read("fixture.json"))
        return spec, load(archive.read("inputs.safetensors")), load(archive.read("outputs.safetensors"))


def produce(maps, masks):
    """Return values, regions and image_values as the fixture's notes define them; None becomes NaN."""
    counts = {limit: PixelCounts(aupro_limit=limit) for limit in (0.3, 1.0)}
    for each in counts.values():
        each.update(maps, masks)
    pixel = counts[0.3].compute()
    image = image_metrics(maps.max((1, 2)), masks.any((1, 2)))
    values = [*(pixel[name] for name in ("auroc", "ap", "f1_max", "aupro")), counts[1.0].compute()["aupro"]]
    image_values = [None, None] if image["auroc"] is None else [image["auroc"], image["ap"]]
    return {
        "values": np.array(values, np.float64),
        "regions": np.array([counts[0.3].facts()["regions"]]),
        "image_values": np.array(image_values, np.float64),
    }


def test_every_case_of_the_fixture_is_listed_here(fixture):
    assert fixture[0]["options"]["cases"] == CASES


@pytest.mark.parametrize("case", CASES)
def test_metrics_equal_the_fixture_within_its_tolerance(fixture, case):
    spec, inputs, outputs = fixture
    for name, value in produce(inputs[f"{case}.map"], inputs[f"{case}.mask"]).items():
        tolerance = spec["outputs"][f"{case}.{name}"]
        np.testing.assert_allclose(
            value, outputs[f"{case}.{name}"], rtol=tolerance["rtol"], atol=tolerance["atol"], err_msg=f"{case}.{name}"
        )
