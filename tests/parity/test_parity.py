"""Every fixture's required outputs, recomputed with the project's code, agree with the reference implementation's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import produce
import pytest
import torch
from safetensors.torch import load_file

HERE = Path(__file__).parent
SHARED = HERE.parents[2] / "shared" / "parity"  # beside a checkout; not part of the repository
PATHS = {path.stem: path for folder in (SHARED, HERE / "fixtures") for path in sorted(folder.glob("*.zip"))}


@pytest.mark.filterwarnings("ignore:dbscan")  # a fixture's clusters may be degenerate
@pytest.mark.parametrize("name", sorted(PATHS))
def test_outputs_agree_with_the_reference_implementation(name: str) -> None:
    fixture = produce.read(PATHS[name])
    compute = produce.producer(fixture.spec["method"])
    if compute is None:
        pytest.skip(f"no producer yet for {fixture.spec['method']}")
    with torch.inference_mode():
        produced = compute(fixture)
    required = {key for key, output in fixture.spec["outputs"].items() if not output.get("optional")}
    assert required <= produced.keys()
    for key in sorted(produced.keys() & fixture.spec["outputs"].keys()):
        output = fixture.spec["outputs"][key]
        assert_close(produced[key], fixture.outputs[key], output["atol"], output["rtol"], f"{name}: {key}")


def assert_close(produced: torch.Tensor, expected: torch.Tensor, atol: float, rtol: float, name: str) -> None:
    """Fail where |produced - expected| > atol + rtol * |expected|, as compare.py does; NaN equals NaN alone."""
    assert produced.shape == expected.shape, f"{name}: shape {list(produced.shape)}, expected {list(expected.shape)}"
    np.testing.assert_allclose(produced.double().numpy(), expected.double().numpy(), rtol, atol, err_msg=name)


@pytest.mark.parametrize(
    "name",
    [
        "winclip_native",
        "musc_native",
        "april_gan_native",
        "fiseclip_native",
        "clip_surgery_native",
        "sdp_native",
        "sdp_plus_native",
        "acr_s",
        "adaclip_hsf",
        "anomalyclip_multi",
    ],
)
def test_every_method_with_a_producer_commits_a_fixture(name: str) -> None:
    assert (HERE / "fixtures" / f"{name}.zip").is_file()


def test_comparison_refuses_a_difference_beyond_the_tolerance() -> None:
    expected = torch.tensor([1.0, float("nan")])
    assert_close(torch.tensor([1.1, float("nan")]), expected, 0.05, 0.06, "inside")
    with pytest.raises(AssertionError):
        assert_close(torch.tensor([1.2, float("nan")]), expected, 0.05, 0.06, "outside")
    with pytest.raises(AssertionError):
        assert_close(torch.tensor([1.0, 1.0]), expected, 0.05, 0.06, "a number for NaN")


def test_command_writes_the_outputs_of_a_fixture(tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    assert produce.main([str(HERE / "fixtures" / "winclip_native.zip"), str(out)]) == 0
    assert {"zero_map", "zero_score", "few_map", "few_score"} <= load_file(out).keys()


def test_command_refuses_a_fixture_without_producer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(produce, "PRODUCERS", tmp_path)
    out = tmp_path / "out.safetensors"
    assert produce.main([str(HERE / "fixtures" / "winclip_native.zip"), str(out)]) == 1
    assert not out.exists()
