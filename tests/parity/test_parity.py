"""Every fixture's required outputs, recomputed with the project's code, agree with the reference implementation's."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import produce
import pytest
import torch
from safetensors.torch import load_file

from zsadbench.encoders.features import FeatureRequest

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


def with_spec(fixture: produce.Fixture, **changes: object) -> produce.Fixture:
    """Return a fixture nobody has read from yet, with other entries in its fixture.json."""
    spec = {**fixture.spec, **changes}
    given = {"spec": produce.Given(spec, set(produce.ABOUT)), "options": produce.Given(spec["options"])}
    return dataclasses.replace(fixture, inputs=produce.Given(dict(fixture.inputs)), **given)


def committed(name: str) -> produce.Fixture:
    return produce.read(HERE / "fixtures" / f"{name}.zip")


@torch.inference_mode()
def test_whatever_a_fixture_gives_is_used_or_refused() -> None:
    fixture = committed("musc_native")
    compute = produce.producer("musc")
    options = dict(fixture.options)
    with pytest.raises(NotImplementedError, match="options weight_decay"):
        compute(with_spec(fixture, options=options | {"weight_decay": 0.1}))
    with pytest.raises(NotImplementedError, match="entries domain"):
        compute(with_spec(fixture, domain="medical"))
    given = dataclasses.replace(with_spec(fixture), inputs=produce.Given({**fixture.inputs, "depth": torch.ones(1)}))
    with pytest.raises(NotImplementedError, match="inputs depth"):
        compute(given)
    with pytest.raises(NotImplementedError, match="option group_size is 5"):
        compute(with_spec(fixture, options=options | {"group_size": 5}))


@torch.inference_mode()
def test_switches_of_a_variant_reach_the_method() -> None:
    fixture = committed("fiseclip_native")
    variants = {"default": {}, "alone": {"fuse": "fi", "score": "max(map)"}}
    compute = produce.producer("fiseclip")
    produced = compute(with_spec(fixture, options=dict(fixture.options) | {"variants": variants}))
    torch.testing.assert_close(produced["alone_score"], produced["alone_map"].amax(dim=(1, 2)))
    assert (produced["score"] > produced["map"].amax(dim=(1, 2))).all()
    with pytest.raises(NotImplementedError, match="a variant switches"):
        compute(with_spec(fixture, options=dict(fixture.options) | {"variants": {"other": {"gain": 2}}}))


@pytest.mark.parametrize("prefix", ["visual.", "image_tower.", "image_tower.visual."])
def test_an_image_tower_of_open_clip_needs_neither_logit_scale_nor_projection(prefix: str) -> None:
    towers = (committed("fiseclip_native"), committed("anomalyclip_multi"))
    image, text = (fixture.spec["backbone"] for fixture in towers)
    left_out = {"visual.proj", "logit_scale"}
    tensors = {
        key.replace("visual.", prefix, 1): part for key, part in towers[0].backbone.items() if key not in left_out
    }
    tensors |= {
        key: part for key, part in towers[1].backbone.items() if not key.startswith("visual.") and key not in left_out
    }
    tower = {"kind": "clip", "library": "open_clip", "key_prefix": prefix.removesuffix("visual.") or prefix}
    backbone = {
        **text,
        "quick_gelu": image["quick_gelu"],
        "vision_cfg": None,
        "image_tower": tower | {"kwargs": image["vision_cfg"]},
    }
    fixture = dataclasses.replace(with_spec(towers[0], backbone=backbone), backbone=tensors)
    encoder, alone = fixture.encoder(), towers[0].encoder()
    wanted = FeatureRequest(tokens=frozenset({encoder.depth}), cls=True)
    ours, expected = (one.encode(towers[0].inputs["images"], wanted) for one in (encoder, alone))
    torch.testing.assert_close(ours.tokens(encoder.depth), expected.tokens(encoder.depth), rtol=0, atol=0)
    torch.testing.assert_close(ours.cls, expected.cls, rtol=0, atol=0)
    assert encoder.text.joint_width == text["embed_dim"]


def test_prompts_of_bayes_pfl_are_the_given_ones() -> None:
    bayes = produce.module_of("bayes_pfl")
    spec = {"options": {}, "test_class_names": ["pcb1"], "prompt_strings": {"pcb1": "X pcb1"}}
    fixture = produce.Fixture(produce.Given(spec), produce.Given({}), {}, {}, produce.Given({}), {})
    assert [one.noun for one in bayes.categories(fixture, "test")] == ["pcb1"]
    with pytest.raises(NotImplementedError, match="'a pcb1'"):
        bayes.noun_of("a pcb1")


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
